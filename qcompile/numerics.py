"""THE arithmetic contract, written once (docs/arithmetic.md explains it).

`clamp`, `requantize` and `threshold` are plain arithmetic with a `select` argument. With numpy
arrays and `np.where` they simulate, with Amaranth values and `Mux` they elaborate, and the C
templates spell the same expressions. Rounding has one rule: floor after adding half a unit, so
ties go towards plus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from qcompile.types import Range, Rounding

Select = Callable[[Any, Any, Any], Any]
"""select(condition, if_true, if_false)"""

MULTIPLIER_ERROR = Fraction(1, 16)
"""Largest error of a requantise multiplier where the output does not saturate, in output steps."""

MINIMUM_SHIFT = 6
"""Shifts are at least this, so that a bias is off by at most 2**-7 output steps."""


def round_half_up(value: Fraction | float | int) -> int:
    """floor(value + 1/2), exactly: the one rounding rule of the contract."""
    return math.floor(Fraction(value) + Fraction(1, 2))


def imported_error(codes: Range) -> Fraction:
    """The error allowed to multipliers, in output steps, where a model brought its own scale: a
    factor of 24 bits, as the float32 arithmetic of other tools has it."""
    return Fraction(codes.magnitude, 1 << 24)


def rounding_offsets(rounding: Rounding, error: Fraction) -> tuple[Fraction, Fraction]:
    """What to add before the floor, for v >= 0 and for v < 0, where v is known up to `error`.

    A value that is `error` or less below a tie counts as the tie, so that exact multiples of a step
    stay what they are in FLOOR and CEIL. HALF_EVEN rounds half up, as the contract does.
    """
    half = Fraction(1, 2)
    match rounding:
        case Rounding.FLOOR:
            return error, error
        case Rounding.CEIL:
            return 1 - error, 1 - error
        case Rounding.DOWN:
            return error, 1 - error
        case Rounding.UP:
            return 1 - error, error
        case Rounding.HALF_UP:
            return half, half - error
        case Rounding.HALF_DOWN:
            return half - error, half
    return half, half


def clamp(value: Any, low: Any, high: Any, select: Select) -> Any:
    """`value` limited to low..high."""
    return select(value < low, low, select(value > high, high, value))


def requantize(
    acc: Any, multiplier: Any, bias: Any, shift: Any, low: Any, high: Any, select: Select
) -> Any:
    """y = clamp((acc * multiplier + bias) >> shift, low, high), `>>` being floor (rule 3)."""
    return clamp((acc * multiplier + bias) >> shift, low, high, select)


def threshold(acc: Any, thresholds: Sequence[Any], low: int, step: int, select: Select) -> Any:
    """low + step * (number of thresholds that acc reaches); thresholds carry their own tie rule."""
    result: Any = low
    for index, limit in enumerate(thresholds):
        result = select(acc >= limit, low + step * (index + 1), result)
    return result


@dataclass(frozen=True, slots=True)
class NegativeBranch:
    """Multiplier and bias where `acc < pivot` (LeakyRelu, PRelu, a ReLU before a norm)."""

    pivots: tuple[int, ...]
    multipliers: tuple[int, ...]
    biases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Requantize:
    """The multiply-shift epilogue of an exact sum. Vectors have one entry, or one per channel.

    For channel c: ``a = min(max(acc, acc_low[c]), acc_high[c])``, then (m, b) is
    `multipliers[c], biases[c]`, or those of `negative` where a < pivots[c], and
    ``y = clamp((a * m + b) >> shifts[c], lows[c], highs[c])``. The biases hold the operator's
    bias plus the rounding half, in units of 2**-shift output steps. The clamp of `acc` never
    changes y for a sum within its proven range: it only bounds the product (rule 3).
    """

    multipliers: tuple[int, ...]
    biases: tuple[int, ...]
    shifts: tuple[int, ...]
    lows: tuple[int, ...]
    highs: tuple[int, ...]
    acc_low: tuple[int, ...]
    acc_high: tuple[int, ...]
    negative: NegativeBranch | None = None

    @property
    def is_uniform(self) -> bool:
        """All vectors have one entry."""
        vectors = [
            self.multipliers,
            self.biases,
            self.shifts,
            self.lows,
            self.highs,
            self.acc_low,
            self.acc_high,
        ]
        if self.negative is not None:
            negative = self.negative
            vectors += [negative.pivots, negative.multipliers, negative.biases]
        return all(len(vector) == 1 for vector in vectors)

    def product_range(self) -> Range:
        """Range of a * m + b over all channels: says whether 32-bit products suffice."""
        result = Range(0, 0)
        channels = max(len(self.multipliers), len(self.acc_low), len(self.biases))
        if self.negative is not None:
            channels = max(channels, len(self.negative.multipliers), len(self.negative.biases))

        def at(values: tuple[int, ...], channel: int) -> int:
            return values[channel if len(values) > 1 else 0]

        for c in range(channels):
            acc = Range(at(self.acc_low, c), at(self.acc_high, c))
            branches = [(self.multipliers, self.biases)]
            if self.negative is not None:
                branches.append((self.negative.multipliers, self.negative.biases))
            for multipliers, biases in branches:
                product = acc.scaled(at(multipliers, c))
                bias = at(biases, c)
                result = result.union(product).union(product + Range(bias, bias))
        return result

    def output_range(self) -> Range:
        """The codes of all channels."""
        return Range(min(self.lows), max(self.highs))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """An epilogue by exact integer thresholds: y = low + step * #{k : acc >= thresholds[k][c]}.

    `thresholds[k]` ascends with k for every channel; each has one entry or one per channel.
    """

    thresholds: tuple[tuple[int, ...], ...]
    low: int
    step: int = 1

    def output_range(self) -> Range:
        return Range(self.low, self.low + self.step * len(self.thresholds))


Epilogue = Requantize | Thresholds


def multiplier_and_shift(
    ratio: Fraction, reach: int, error: Fraction = MULTIPLIER_ERROR
) -> tuple[int, int]:
    """Integers (m, s) with |m / 2**s - ratio| * reach <= `error`.

    Args:
        ratio: the real factor from sum units to output steps (negative for falling functions).
        reach: largest |sum| that does not saturate the output.
        error: in output steps. Where it is below the usual one, a bias is not off by more either.

    The smallest such s >= `MINIMUM_SHIFT` is taken, so products stay narrow. A power-of-two ratio
    comes out exact: m is then a power of two as well.
    """
    shift = MINIMUM_SHIFT
    if error < MULTIPLIER_ERROR:
        shift = max(shift, math.ceil(math.log2(1 / error)))
    if ratio == 0:
        return 0, shift
    if ratio.denominator & (ratio.denominator - 1) == 0 and abs(ratio.numerator).bit_count() == 1:
        shift = max(shift, ratio.denominator.bit_length() - 1)
    while _multiplier_error(ratio, shift) * reach > error:
        shift += 1
    return round_half_up(ratio * (1 << shift)), shift


def _multiplier_error(ratio: Fraction, shift: int) -> Fraction:
    return abs(Fraction(round_half_up(ratio * (1 << shift)), 1 << shift) - ratio)
