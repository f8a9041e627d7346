"""Weighted sum of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Add
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: Add, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real weighted sum."""
    return finish_float(op, accumulate(inputs[0], inputs[1], op))


def run_integer(op: Add, inputs: Sequence[Array], output: TensorType) -> Array:
    """Integer weights."""
    dtype = integer_dtype(op)
    acc = accumulate(inputs[0].astype(dtype), inputs[1].astype(dtype), op)
    return finish_integer(op, acc, output)


def accumulate(a: Array, b: Array, op: Add) -> Array:
    """weights[0] * a + weights[1] * b in the common dtype of the inputs, numpy broadcasting."""
    first, second = op.weights
    if (first, second) == (1, 1):
        result: Array = a + b
    elif (first, second) == (1, -1):
        result = a - b
    else:
        result = a * a.dtype.type(first) + b * b.dtype.type(second)
    return result
