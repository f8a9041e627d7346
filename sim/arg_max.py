"""Index of the largest element."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import ArgMax
from qcompile.types import Array, TensorType


def run(op: ArgMax, inputs: Sequence[Array], output: TensorType) -> Array:
    """Indices, in the float and the integer stage."""
    x = inputs[0]
    if op.last:
        reverse = np.argmax(np.flip(x, op.axis), axis=op.axis, keepdims=op.keepdims)
        index = x.shape[op.axis] - 1 - reverse
    else:
        index = np.argmax(x, axis=op.axis, keepdims=op.keepdims)
    return np.asarray(index).astype(output.element.storage)
