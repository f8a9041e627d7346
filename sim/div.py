"""Quotient of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Div
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, sum_range
from qcompile.types import Array, TensorType


def run_float(op: Div, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real quotient; division by zero follows IEEE 754."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Array = inputs[0] / inputs[1]
    return finish_float(op, quotient)


def run_integer(op: Div, inputs: Sequence[Array], output: TensorType) -> Array:
    """floor(a * 2**fraction_bits / b), with 1 in place of a divisor 0."""
    sum_range(op)
    divisor = inputs[1].astype(np.int64)
    divisor[divisor == 0] = 1
    dividend = inputs[0].astype(np.int64) * (1 << op.fraction_bits)
    return finish_integer(op, np.asarray(np.floor_divide(dividend, divisor)), output)
