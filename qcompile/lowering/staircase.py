"""Epilogues of the published fixed-point formats: staircases, met at every sum.

These formats round towards zero, to the even neighbour, or to powers of two; none of that is the
contract's "floor after adding half". But each is a rising function of whole levels, so a channel's
codes are a staircase over its sums. A multiplier, bias and shift (two pairs where negative sums
need their own) are searched for that meet the staircase exactly: they are compared at both sides of
every step. Where there are none, exact thresholds take over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from typing import Protocol

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Op
from qcompile.lowering.curve import Curve, Line
from qcompile.lowering.epilogue import INT32, join_channels
from qcompile.numerics import (
    MINIMUM_SHIFT,
    Epilogue,
    NegativeBranch,
    Requantize,
    Thresholds,
    round_half_up,
)
from qcompile.types import Range

LARGEST_SHIFT = 40
MOST_THRESHOLDS = 255


class Levels(Protocol):
    """A quantizer of real numbers as a rising, odd function to whole levels."""

    def level(self, numerator: int, denominator: int) -> int:
        """The level of numerator / denominator (in steps of the output's scale), exactly."""


@dataclass(frozen=True, slots=True)
class Staircase:
    """The level at the lowest sum, then every sum at which it changes, with the new level."""

    first: int
    changes: tuple[tuple[int, int], ...]

    @property
    def last(self) -> int:
        return self.changes[-1][1] if self.changes else self.first

    @property
    def codes(self) -> Range:
        return Range(min(self.first, self.last), max(self.first, self.last))

    def corners(self) -> list[tuple[int, int]]:
        """(sum, level) on both sides of every step."""
        before = [self.first, *(level for _, level in self.changes)]
        return [
            point
            for (acc, level), old in zip(self.changes, before, strict=False)
            for point in ((acc - 1, old), (acc, level))
        ]


@dataclass(frozen=True, slots=True)
class SteppedEpilogue:
    """`epilogue` gives levels; or, where some channels rise and others fall, how many steps the sum
    has passed, `levels[channel][steps]` being the level then."""

    epilogue: Epilogue
    levels: tuple[tuple[int, ...], ...] | None = None


def staircase_epilogue(
    op: Op, curves: Sequence[Curve], bounds: tuple[float, float], levels: Levels, reach: Range
) -> SteppedEpilogue:
    """The epilogue that finds the level of every sum in `reach`.

    Args:
        op: the operator, for messages.
        curves: for each channel, or for all, the map from the sum to output steps.
        bounds: of the activation, in output steps (infinite where it has none).
        levels: the quantizer.
        reach: the proven range of the sum.

    Raises:
        UnsupportedError: neither a multiplier nor thresholds can do it.
    """
    if any(curve.above.slope * curve.below.slope < 0 for curve in curves):
        raise _unsupported(op, "its activation rises on one side of 0 and falls on the other")
    stairs = [_staircase(curve, bounds, levels, reach) for curve in curves]
    parts = [_fit(curve, steps, reach) for curve, steps in zip(curves, stairs, strict=True)]
    if all(part is not None for part in parts):
        return SteppedEpilogue(_join([part for part in parts if part is not None]))
    return _thresholds(op, stairs, reach)


# Staircases -----------------------------------------------------------------------------------


def _staircase(
    curve: Curve, bounds: tuple[float, float], levels: Levels, reach: Range
) -> Staircase:
    """All steps of one channel, by bisection: levels rise or fall throughout."""
    lines = (curve.below, curve.above)
    common = math.lcm(*(value.denominator for line in lines for value in (line.slope, line.offset)))
    scaled = [(int(line.slope * common), int(line.offset * common)) for line in lines]
    low, high = (_level_of_bound(bound, levels) for bound in bounds)

    def level(acc: int) -> int:
        slope, offset = scaled[0 if curve.pivot is not None and acc < curve.pivot else 1]
        found = levels.level(slope * acc + offset, common)
        if low is not None:
            found = max(found, low)
        return found if high is None else min(found, high)

    changes = _changes(level, reach.low, level(reach.low), reach.high, level(reach.high))
    return Staircase(level(reach.low), tuple(changes))


def _level_of_bound(bound: float, levels: Levels) -> int | None:
    if math.isinf(bound):
        return None
    exact = Fraction(bound)
    return levels.level(exact.numerator, exact.denominator)


def _changes(
    level: Callable[[int], int], left: int, at_left: int, right: int, at_right: int
) -> Iterator[tuple[int, int]]:
    if at_left == at_right:
        return
    if right - left == 1:
        yield right, at_right
        return
    middle = (left + right) // 2
    at_middle = level(middle)
    yield from _changes(level, left, at_left, middle, at_middle)
    yield from _changes(level, middle, at_middle, right, at_right)


# Multipliers ----------------------------------------------------------------------------------


def _fit(curve: Curve, steps: Staircase, reach: Range) -> Requantize | None:
    """One channel's multiplier and bias, or two pairs of them, that meet every corner.

    The clamp is the channel's own lowest and highest level: it makes the shoulder of a ReLU.
    """
    codes = steps.codes
    if not steps.changes:
        bias = steps.first << MINIMUM_SHIFT
        return _part((0, bias), MINIMUM_SHIFT, codes, (reach.low, reach.high), None)
    ends = (steps.changes[0][0] - 1, steps.changes[-1][0])
    corners = steps.corners()
    single = _line(corners, codes, _slope_at(curve, corners))
    if single is not None:
        return _part(single[1], single[0], codes, ends, None)
    return _two_lines(curve, steps, ends)


def _two_lines(curve: Curve, steps: Staircase, ends: tuple[int, int]) -> Requantize | None:
    """Negative and positive levels on a line each; they meet where the real value crosses 0, or
    where the curve bends."""
    codes, corners = steps.codes, steps.corners()
    zeros = [_crossing(line) for line in (curve.above, curve.below)]
    pivots = [curve.pivot, *zeros, *(acc for acc, level in corners if level == 0)]
    for pivot in dict.fromkeys(p for p in pivots if p is not None and ends[0] < p <= ends[1]):
        level_at = _level_at(steps, pivot), _level_at(steps, pivot - 1)
        upper = [point for point in corners if point[0] >= pivot] + [(pivot, level_at[0])]
        lower = [point for point in corners if point[0] < pivot] + [(pivot - 1, level_at[1])]
        found = [_line(points, codes, _slope_at(curve, points)) for points in (upper, lower)]
        if found[0] is None or found[1] is None:
            continue
        shift = max(found[0][0], found[1][0])
        above, below = (_shifted(line, shift - own) for own, line in (found[0], found[1]))
        branch = NegativeBranch((pivot,), (below[0],), (below[1],))
        return _part(above, shift, codes, ends, branch)
    return None


def _crossing(line: Line) -> int | None:
    return None if line.slope == 0 else math.ceil(-line.offset / line.slope)


def _level_at(steps: Staircase, acc: int) -> int:
    reached = [level for at, level in steps.changes if at <= acc]
    return reached[-1] if reached else steps.first


def _slope_at(curve: Curve, points: Sequence[tuple[int, int]]) -> Fraction:
    """The slope of the line that most of the points are on."""
    if curve.pivot is None:
        return curve.above.slope
    below = sum(acc < curve.pivot for acc, _ in points)
    return curve.below.slope if 2 * below > len(points) else curve.above.slope


def _line(
    points: Sequence[tuple[int, int]], codes: Range, slope: Fraction
) -> tuple[int, tuple[int, int]] | None:
    """The smallest shift with (multiplier, bias) so that (acc * m + b) >> shift, clamped, is the
    level of every point."""
    if not points:
        return MINIMUM_SHIFT, (0, 0)
    for shift in range(MINIMUM_SHIFT, LARGEST_SHIFT + 1):
        m = round_half_up(slope * (1 << shift))
        from_below = [(k << shift) - acc * m for acc, k in points if k > codes.low]
        from_above = [((k + 1) << shift) - 1 - acc * m for acc, k in points if k < codes.high]
        least = max(from_below, default=None)
        most = min(from_above, default=None)
        if least is None or most is None:
            bias = most if least is None else least
            return shift, (m, codes.low << shift if bias is None else bias)
        if least <= most:
            return shift, (m, (least + most) // 2)
    return None


def _shifted(line: tuple[int, int], by: int) -> tuple[int, int]:
    return line[0] << by, line[1] << by


def _part(
    line: tuple[int, int],
    shift: int,
    codes: Range,
    ends: tuple[int, int],
    negative: NegativeBranch | None,
) -> Requantize:
    clamp = (codes.low,), (codes.high,)
    return Requantize((line[0],), (line[1],), (shift,), *clamp, (ends[0],), (ends[1],), negative)


def _join(parts: Sequence[Requantize]) -> Requantize:
    """Channels side by side, with a common shift unless that takes the products out of 32 bits."""
    shift = max(part.shifts[0] for part in parts)
    common = join_channels([_with_shift(part, shift) for part in parts])
    if INT32.contains(common.product_range()):
        return common
    separate = join_channels(parts)
    return separate if INT32.contains(separate.product_range()) else common


def _with_shift(part: Requantize, shift: int) -> Requantize:
    by = shift - part.shifts[0]
    negative = part.negative
    if negative is not None:
        negative = replace(
            negative,
            multipliers=tuple(m << by for m in negative.multipliers),
            biases=tuple(b << by for b in negative.biases),
        )
    return replace(
        part,
        multipliers=tuple(m << by for m in part.multipliers),
        biases=tuple(b << by for b in part.biases),
        shifts=(shift,),
        negative=negative,
    )


# Thresholds -----------------------------------------------------------------------------------


def _thresholds(op: Op, stairs: Sequence[Staircase], reach: Range) -> SteppedEpilogue:
    """Exact limits of the levels, or of the steps where channels go either way."""
    if any(steps.last < steps.first for steps in stairs):
        return _counted(op, stairs, reach)
    codes = reduce(Range.union, (steps.codes for steps in stairs))
    _check_count(op, codes.high - codes.low)
    wanted = range(codes.low + 1, codes.high + 1)
    rows = [tuple(_first(steps, level, reach) for steps in stairs) for level in wanted]
    return SteppedEpilogue(Thresholds(tuple(map(_shrunk, rows)), codes.low))


def _counted(op: Op, stairs: Sequence[Staircase], reach: Range) -> SteppedEpilogue:
    count = max(len(steps.changes) for steps in stairs)
    _check_count(op, count)
    never = (reach.high + 1, 0)
    padded = [[*steps.changes, *[never] * (count - len(steps.changes))] for steps in stairs]
    rows = [tuple(changes[index][0] for changes in padded) for index in range(count)]
    levels = tuple(
        (steps.first, *(level for _, level in steps.changes), *[steps.last] * missing)
        for steps in stairs
        for missing in (count - len(steps.changes),)
    )
    return SteppedEpilogue(Thresholds(tuple(map(_shrunk, rows)), 0), levels)


def _shrunk(row: tuple[int, ...]) -> tuple[int, ...]:
    return row[:1] if len(set(row)) == 1 else row


def _check_count(op: Op, count: int) -> None:
    if count > MOST_THRESHOLDS:
        raise _unsupported(op, f"its {count + 1} levels have ties that no multiplier rounds so")


def _first(steps: Staircase, wanted: int, reach: Range) -> int:
    """The first sum at which a rising channel has come to a level."""
    if steps.first >= wanted:
        return reach.low
    return next((acc for acc, level in steps.changes if level >= wanted), reach.high + 1)


def _unsupported(op: Op, reason: str) -> UnsupportedError:
    advice = "give this layer another --quantizer in --config, such as fixed"
    return UnsupportedError([Unsupported(op.kind, op.name, reason, advice)], "fixed point")
