"""Functions of one code as look-up tables (contract, rules 6 and 8)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from qcompile.numerics import round_half_up
from qcompile.ops import Pointwise
from qcompile.types import Array, IntType

EXP_TABLE_ONE = 1 << 15
"""What stands for exp(0) in the table of a softmax."""


def rounded_codes(reals: Array, scale: Fraction, element: IntType) -> Array:
    """Real numbers as codes of the grid `scale`, rounded half up and limited to the element."""
    codes = [round_half_up(Fraction(float(real)) / scale) for real in np.ravel(reals)]
    limited = np.array([min(max(code, element.low), element.high) for code in codes])
    return limited.reshape(np.shape(reals)).astype(element.storage)


def function_table(
    op: Pointwise, source: IntType, scale: Fraction, element: IntType, out_scale: Fraction
) -> Array:
    """The codes of `op` for every code of `source`, lowest first."""
    codes = np.arange(source.low, source.high + 1)
    return rounded_codes(op.function(codes.astype(np.float64) * float(scale)), out_scale, element)


def exp_table(source: IntType, scale: Fraction) -> tuple[int, ...]:
    """round(2**15 * exp(-d * scale)) for every difference d of two codes."""
    differences = range(source.high - source.low + 1)
    return tuple(round_half_up(EXP_TABLE_ONE * math.exp(-d * float(scale))) for d in differences)
