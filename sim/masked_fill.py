"""A constant in place of some elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import MaskedFill
from qcompile.types import Array, TensorType


def run(op: MaskedFill, inputs: Sequence[Array], output: TensorType) -> Array:
    """The operator's value among floats, its code among codes."""
    x, mask = inputs
    fill = op.value if output.is_float else op.code
    return np.where(mask != 0, x, np.asarray(fill, dtype=x.dtype))
