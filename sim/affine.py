"""Per-channel scale and shift."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Affine
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: Affine, inputs: Sequence[Array], output: TensorType) -> Array:
    """scale[c] * x + shift[c]."""
    shift = inputs[2] if len(inputs) > 2 else None
    return finish_float(op, accumulate(inputs[0], inputs[1]), shift)


def run_integer(op: Affine, inputs: Sequence[Array], output: TensorType) -> Array:
    """Integer scales; the shift is in the epilogue."""
    dtype = integer_dtype(op)
    acc = accumulate(inputs[0].astype(dtype), inputs[1].astype(dtype))
    return finish_integer(op, acc, output)


def accumulate(x: Array, scale: Array) -> Array:
    """scale[c] * x, channels on axis 1."""
    result: Array = x * scale.reshape(-1, *(1,) * (x.ndim - 2))
    return result
