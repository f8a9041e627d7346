"""Functions of one code as look-up tables (contract, rules 6 and 8)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from qcompile.errors import GraphError
from qcompile.lowering.curve import HALF
from qcompile.lowering.published import published_codes, published_format
from qcompile.numerics import imported_error, round_half_up, rounding_offsets
from qcompile.ops import Pointwise
from qcompile.types import Array, CodebookKind, IntType, TensorType

EXP_TABLE_ONE = 1 << 15
"""What stands for exp(0) in the table of a softmax."""

MOST_POWERS = 1 << 11
"""Entries of the table of an attention: an exponential is then off by 0.55 % at most."""


def rounded_codes(reals: Array, scale: Fraction, kind: TensorType) -> Array:
    """Real numbers as codes of the grid `scale`, rounded as the type says (half up, unless it came
    with the model) and limited to the codes of the type (of all its channels); as published in a
    published format."""
    if published_format(kind) is not None:
        return published_codes(np.asarray(reals, dtype=np.float64), kind)
    codes = [_code(Fraction(float(real)) / scale, kind) for real in np.ravel(reals)]
    limited = np.array([min(max(code, kind.codes.low), kind.codes.high) for code in codes])
    return limited.reshape(np.shape(reals)).astype(kind.integer.storage)


def _code(steps: Fraction, kind: TensorType) -> int:
    if kind.codebook is not None and kind.codebook.kind is CodebookKind.BINARY:
        return -1 if steps < 0 else 1
    if kind.quantization is None or kind.quantization.imported is None:
        return round_half_up(steps)
    if kind.codebook is not None and kind.codebook.kind is CodebookKind.TERNARY:
        return (steps > HALF) - (steps < -HALF)
    offsets = rounding_offsets(kind.quantization.imported, imported_error(kind.codes))
    return math.floor(steps + offsets[1 if steps < 0 else 0])


def boundary_offset(value: str, kind: TensorType) -> float:
    """What is added to floats, in steps, before the floor that makes codes of them.

    Raises:
        GraphError: the rounding depends on the sign, or is none of a floor.
    """
    q = published_format(kind)
    if q is not None:
        assert kind.codebook is not None
        if kind.codebook.kind is not CodebookKind.FXP_PAPER or q.fraction or kind.codes.low < 0:
            raise GraphError(
                f"value '{value}': floats cannot become {kind.codebook.name}; use --input-kind "
                f"uint8, or keep weights and activations of a layer both in integers"
            )
        return 0.0
    if kind.quantization is None or kind.quantization.imported is None:
        return 0.5
    offsets = rounding_offsets(kind.quantization.imported, imported_error(kind.codes))
    if offsets[0] != offsets[1] and kind.codes.low < 0:
        raise GraphError(
            f"value '{value}': rounding mode {kind.quantization.imported.value} of signed values "
            f"cannot be applied to floats; use --input-kind uint8, or export with ROUND"
        )
    return float(offsets[0])


def function_table(
    op: Pointwise, source: IntType, scale: Fraction, output: TensorType, out_scale: Fraction
) -> Array:
    """The codes of `op` for every code of `source`, lowest first."""
    codes = np.arange(source.low, source.high + 1)
    return rounded_codes(op.function(codes.astype(np.float64) * float(scale)), out_scale, output)


def exp_table(source: IntType, scale: Fraction) -> tuple[int, ...]:
    """round(2**15 * exp(-d * scale)) for every difference d of two codes."""
    differences = range(source.high - source.low + 1)
    return tuple(round_half_up(EXP_TABLE_ONE * math.exp(-d * float(scale))) for d in differences)


def attention_powers(unit: Fraction, largest: int) -> tuple[int, tuple[int, ...]]:
    """The shift of score differences 0..largest, and round(2**15 * exp(-i * 2**shift * unit)) up to
    the first entry that is 0 or that no difference exceeds; at most `MOST_POWERS` entries."""
    far = (math.log(EXP_TABLE_ONE) + math.log(2)) / float(unit)
    last = min(largest, math.ceil(far))
    shift = 0
    while -(-last >> shift) >= MOST_POWERS:
        shift += 1
    count = -(-last >> shift) + 1
    step = float(unit * (1 << shift))
    return shift, tuple(round_half_up(EXP_TABLE_ONE * math.exp(-i * step)) for i in range(count))
