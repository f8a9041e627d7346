"""Activations of `fxp-paper` and `fxp-em` in integers, bit for bit (qcompile/fixed_point.py).

Q(i).0 of `fxp-paper` rounds towards zero: an epilogue does it. With a fraction it rounds like every
epilogue (but ties to even) as long as |x| stays below 2**i; beyond, the fraction goes on while the
integer part stands still. Where that can happen, the epilogue counts half steps instead and a table
turns them into codes. `fxp-em` counts powers of two with thresholds, and a table has their codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from qcompile.fixed_point import EM_LOWEST, QFormat, parse_q_format
from qcompile.graph import Op
from qcompile.lowering.curve import Curve
from qcompile.lowering.epilogue import curve_of, make_epilogue
from qcompile.lowering.staircase import Levels, SteppedEpilogue, staircase_epilogue
from qcompile.numerics import Epilogue
from qcompile.ops.activation import Activation
from qcompile.types import Array, CodebookKind, CodeLimits, IntType, Range, TensorType

TABLE_BITS = 12
"""Look-up tables and softmax take at most this many bits; wider inputs are rescaled first."""

MOST_EXACT_DIGITS = 8
"""Formats with a fraction and more digits (Q8.8) round as every epilogue does: sums within 1/16 of
a step of a tie may go to the other neighbour, and |x| >= 2**i saturates."""


@dataclass(frozen=True, slots=True)
class PublishedEpilogue:
    """`epilogue` gives codes; or indices of type `index`, where there is a `table` of codes: one
    for all channels, or [channels, indices]."""

    epilogue: Epilogue
    index: IntType | None = None
    table: Array | None = None


def published_format(kind: TensorType) -> QFormat | None:
    """The format of an `fxp-paper` or `fxp-em` tensor, None for others."""
    book = kind.codebook
    if book is None or book.kind not in (CodebookKind.FXP_PAPER, CodebookKind.FXP_EM):
        return None
    return parse_q_format(book.name.rpartition(" ")[2], book.kind.value)


def published_codes(reals: Array, kind: TensorType) -> Array:
    """Codes of real numbers (float64, any shape) in a published format."""
    q = published_format(kind)
    assert q is not None
    assert kind.codebook is not None
    paper = kind.codebook.kind is CodebookKind.FXP_PAPER
    codes = q.paper_codes(reals) if paper else q.em_codes(reals)
    return codes.clip(kind.integer.low, kind.integer.high).astype(kind.integer.storage)


def published_epilogue(
    op: Op,
    units: Sequence[Fraction],
    biases: Sequence[Fraction],
    activation: Activation,
    output: TensorType,
    reach: Range,
) -> PublishedEpilogue:
    """The lowered form of a sum whose output has a published format; arguments as for
    `make_epilogue`.

    Raises:
        UnsupportedError: the format cannot be met exactly.
    """
    q = published_format(output)
    assert q is not None
    assert output.quantization is not None
    assert output.codebook is not None
    scale = output.quantization.exact()
    act = activation
    count = max(map(len, (units, biases, act.slope, act.gain, act.shift)))

    def at(values: Sequence[Fraction], channel: int) -> Fraction:
        return values[channel if len(values) > 1 else 0]

    def lines(step: Fraction) -> tuple[list[Curve], tuple[float, float]]:
        curves = [curve_of(at(units, c), at(biases, c), act, c, step) for c in range(count)]
        return curves, (act.low / float(step), act.high / float(step))

    curves, bounds = lines(scale)
    signed = output.integer.signed
    if output.codebook.kind is CodebookKind.FXP_EM:
        magnitudes = (0, *q.em_levels())
        stepped = staircase_epilogue(op, curves, bounds, _Powers(q), reach)
        return _with_table(stepped, lambda level: magnitudes[min(level, len(magnitudes) - 1)])
    if q.fraction == 0:
        levels: Levels = _Truncated(q.paper_largest)
        return _direct(staircase_epilogue(op, curves, bounds, levels, reach))
    if q.digits > MOST_EXACT_DIGITS:
        limits = CodeLimits((-q.paper_largest if signed else 0,), (q.paper_largest,))
        limited = replace(output, limits=limits)
        return PublishedEpilogue(make_epilogue(op, units, biases, activation, limited, reach))
    whole = 1 << q.digits
    half_steps = (1 << (TABLE_BITS - (1 if signed else 0))) - 1
    if _largest(curves, bounds, reach) < whole:
        levels = _Rounded(whole)
        return _direct(staircase_epilogue(op, curves, bounds, levels, reach))
    levels = _HalfSteps(half_steps)
    stepped = staircase_epilogue(op, *lines(scale / 2), levels, reach)
    return _with_table(
        stepped, lambda level: int(q.paper_codes(np.array((level + 0.5) / 2 * q.step)))
    )


def _largest(curves: Sequence[Curve], bounds: tuple[float, float], reach: Range) -> float:
    """The largest magnitude that any channel reaches, in steps."""
    ends = [
        float(curve.at(acc)) for curve in curves for acc in (reach.low, reach.high, *_bend(curve))
    ]
    return max(abs(min(max(end, bounds[0]), bounds[1])) for end in ends)


def _bend(curve: Curve) -> tuple[int, ...]:
    return () if curve.pivot is None else (curve.pivot - 1, curve.pivot)


@dataclass(frozen=True, slots=True)
class _Truncated:
    """Towards zero."""

    largest: int

    def level(self, numerator: int, denominator: int) -> int:
        found = min(abs(numerator) // denominator, self.largest)
        return -found if numerator < 0 else found


@dataclass(frozen=True, slots=True)
class _Rounded:
    """To the nearest, ties to even."""

    largest: int

    def level(self, numerator: int, denominator: int) -> int:
        found, rest = divmod(2 * abs(numerator) + denominator, 2 * denominator)
        if rest == 0 and found % 2:
            found -= 1
        found = min(found, self.largest)
        return -found if numerator < 0 else found


@dataclass(frozen=True, slots=True)
class _HalfSteps:
    """Half steps (the unit here) towards zero; a tie, an odd number of them exactly, stays below
    where that is the even neighbour."""

    largest: int

    def level(self, numerator: int, denominator: int) -> int:
        found, rest = divmod(abs(numerator), denominator)
        if rest == 0 and found % 4 == 1:
            found -= 1
        found = min(found, self.largest)
        return -found if numerator < 0 else found


@dataclass(frozen=True, slots=True)
class _Powers:
    """How many powers of two a magnitude has come to, by logarithm; steps of 2**-em_fraction."""

    q: QFormat

    def level(self, numerator: int, denominator: int) -> int:
        if numerator == 0:
            return 0
        # 2 * (n / d)**2 >= 4**e at the largest exponent e, counted in steps.
        square, one = 2 * numerator * numerator, denominator * denominator
        exponent = (square.bit_length() - one.bit_length()) // 2
        while not _reaches(square, one, exponent):
            exponent -= 1
        while _reaches(square, one, exponent + 1):
            exponent += 1
        found = exponent - self.q.em_fraction - EM_LOWEST + 1
        found = min(max(found, 0), len(self.q.em_levels()))
        return -found if numerator < 0 else found


def _reaches(square: int, one: int, exponent: int) -> bool:
    if exponent >= 0:
        return square >= one << (2 * exponent)
    return square << (-2 * exponent) >= one


def _direct(stepped: SteppedEpilogue) -> PublishedEpilogue:
    """Levels are codes."""
    if stepped.levels is None:
        return PublishedEpilogue(stepped.epilogue)
    return _with_table(stepped, lambda level: level)


def _with_table(stepped: SteppedEpilogue, magnitude: Callable[[int], int]) -> PublishedEpilogue:
    index = IntType.holding(stepped.epilogue.output_range())
    reachable = range(index.low, index.high + 1)

    def codes(levels: Iterable[int]) -> list[int]:
        return [int(math.copysign(magnitude(abs(level)), level)) for level in levels]

    if stepped.levels is None:
        return PublishedEpilogue(stepped.epilogue, index, np.array(codes(reachable)))
    rows = [codes(row[min(place, len(row) - 1)] for place in reachable) for row in stepped.levels]
    return PublishedEpilogue(stepped.epilogue, index, np.array(rows))
