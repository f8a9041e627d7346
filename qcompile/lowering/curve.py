"""The real line, bent at most once, that an epilogue rounds; and how it is to be rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Op
from qcompile.numerics import MULTIPLIER_ERROR, imported_error, round_half_up, rounding_offsets
from qcompile.types import Range, TensorType

HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Line:
    """v = slope * acc + offset, v in output steps."""

    slope: Fraction
    offset: Fraction

    def at(self, acc: int) -> Fraction:
        return self.slope * acc + self.offset


@dataclass(frozen=True, slots=True)
class Curve:
    """One channel's map from the sum to output steps: `below` for acc < pivot, else `above`."""

    above: Line
    below: Line
    pivot: int | None

    def at(self, acc: int) -> Fraction:
        line = self.below if self.pivot is not None and acc < self.pivot else self.above
        return line.at(acc)

    def first_line(self) -> Line:
        """The line at the most negative sums."""
        return self.above if self.pivot is None else self.below


def straight(curve: Curve, codes: Range) -> Curve:
    """The curve without a bend that the clamp to `codes` makes in any case.

    A norm behind a ReLU is level on one side. If the other line, continued to that side, goes
    beyond the first code and the level one lies at it, the clamp turns the one into the other.
    """
    if curve.pivot is None:
        return curve
    for level, other, is_below in (
        (curve.below, curve.above, True),
        (curve.above, curve.below, False),
    ):
        if level.slope == 0 and other.slope != 0:
            code = round_half_up(level.offset)
            sinks = (other.slope > 0) == is_below
            if code <= codes.low if sinks else code >= codes.high:
                return Curve(other, other, None)
    return curve


Offsets = tuple[Fraction, Fraction]
"""What is added before the floor, on a curve's line above its pivot and on the one below it."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How near the integers come to the real line: the largest error of a multiplier in output
    steps, and what is added before the floor for v >= 0 and for v < 0."""

    error: Fraction = MULTIPLIER_ERROR
    offsets: Offsets = (HALF, HALF)


def accuracy_of(output: TensorType, codes: Sequence[Range]) -> Accuracy:
    """What the grid of an output asks for; `codes` are those of its channels that can occur."""
    assert output.quantization is not None
    if output.quantization.imported is None:
        return Accuracy()
    error = imported_error(output.codes)
    positive, negative = rounding_offsets(output.quantization.imported, error)
    if all(channel.low >= 0 for channel in codes):
        negative = positive  # they end at the lowest code in any case
    return Accuracy(error, (positive, negative))


def signed(op: Op, curve: Curve, reach: Range, accuracy: Accuracy) -> tuple[Curve, Offsets]:
    """The curve, bent at zero where the rounding is, and the offset of each of its lines.

    Raises:
        UnsupportedError: the rounding depends on the sign, which changes within a line of a curve
            that is bent elsewhere.
    """
    positive, negative = accuracy.offsets
    if positive == negative:
        return curve, accuracy.offsets
    if curve.pivot is None and curve.above.slope != 0:
        zero = -curve.above.offset / curve.above.slope
        rises = curve.above.slope > 0
        curve = Curve(curve.above, curve.above, math.ceil(zero) if rises else math.floor(zero) + 1)
    pivot = reach.low if curve.pivot is None else min(max(curve.pivot, reach.low), reach.high + 1)
    halves = (
        (curve.above.at(min(pivot, reach.high)), curve.above.at(reach.high)),
        (curve.below.at(reach.low), curve.below.at(max(pivot - 1, reach.low))),
    )
    if any(min(ends) < 0 < max(ends) for ends in halves):
        raise UnsupportedError(
            [
                Unsupported(
                    op.kind,
                    op.name,
                    "a rounding mode that depends on the sign, behind a bend that is not at zero",
                    "export with the rounding mode ROUND, FLOOR or CEIL",
                )
            ],
            "the import of quantised models",
        )
    above, below = (positive if min(ends) >= 0 else negative for ends in halves)
    return curve, (above, below)
