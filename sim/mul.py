"""Product of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Mul
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: Mul, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real product."""
    product: Array = inputs[0] * inputs[1]
    return finish_float(op, product)


def run_integer(op: Mul, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact products."""
    dtype = integer_dtype(op)
    product: Array = inputs[0].astype(dtype) * inputs[1].astype(dtype)
    return finish_integer(op, product, output)
