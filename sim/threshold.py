"""Elements above a limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Threshold
from qcompile.types import Array, TensorType


def run(op: Threshold, inputs: Sequence[Array], output: TensorType) -> Array:
    """Zeros and ones, in the float and the integer stage."""
    x = inputs[0]
    if x.dtype.kind == "f":
        limit = x.dtype.type(op.limit)
    else:
        assert op.code_limit is not None
        # Limits outside the dtype are legal: then nothing, or everything, is above.
        x = x.astype(np.int64)
        limit = np.int64(op.code_limit)
    return np.asarray(x > limit).astype(output.element.storage)
