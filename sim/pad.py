"""Padding by a constant, the edge or reflection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Pad, PadMode
from qcompile.types import Array, IntType, TensorType


def run(op: Pad, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type; the constant is `op.code` in the integer stage."""
    x = inputs[0]
    widths = list(zip(op.begins, op.ends, strict=True))
    if op.mode is PadMode.CONSTANT:
        value: float = op.value
        if isinstance(output.element, IntType) and op.code is not None:
            value = op.code
        return np.pad(x, widths, constant_values=x.dtype.type(value))
    return np.pad(x, widths, mode="edge" if op.mode is PadMode.EDGE else "reflect")
