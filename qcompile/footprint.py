"""What the positions of one axis see of the input: for operators that gather along an axis.

Borders are left out: an image is taken as endless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.ops.linear_resize import LinearTaps


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the positions of a value see along one axis.

    Attributes:
        axis: which spatial axis of the input.
        period: input pixels after which everything repeats.
        low: lowest input pixel for each position of a period; position p + len(low) sees the same
            `period` pixels further.
        high: likewise the highest.
    """

    axis: int
    period: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    def longer(self, times: int) -> Footprint:
        """The same with a period that is `times` as long."""
        shifts = [step * self.period for step in range(times)]
        return Footprint(
            self.axis,
            self.period * times,
            tuple(low + shift for shift in shifts for low in self.low),
            tuple(high + shift for shift in shifts for high in self.high),
        )

    def reading(
        self, positions: int, taps: Callable[[int], Sequence[int]], period: int
    ) -> Footprint:
        """What an operator sees whose position p reads positions `taps(p)` of this value.

        Args:
            positions: of the result in a period.
            taps: not empty for at least one position.
            period: of the result in input pixels.
        """
        low, high = [], []
        for p in range(positions):
            seen = [self._at(tap) for tap in taps(p)]
            # Positions between the taps of a transposed convolution see nothing.
            low.append(min((first for first, _ in seen), default=math.inf))
            high.append(max((last for _, last in seen), default=-math.inf))
        centre = [Fraction(p * period, positions) for p in range(positions)]
        return Footprint(
            self.axis,
            period,
            tuple(
                int(x) if math.isfinite(x) else math.ceil(c)
                for x, c in zip(low, centre, strict=True)
            ),
            tuple(
                int(x) if math.isfinite(x) else math.floor(c)
                for x, c in zip(high, centre, strict=True)
            ),
        )

    def _at(self, position: int) -> tuple[int, int]:
        turn, place = divmod(position, len(self.low))
        shift = turn * self.period
        return self.low[place] + shift, self.high[place] + shift

    def joined(self, other: Footprint) -> Footprint | None:
        """What sees all that both see; None if they have different steps or axes."""
        if self.axis != other.axis or self.period * len(other.low) != other.period * len(self.low):
            return None
        common = math.lcm(self.period, other.period)
        one, two = self.longer(common // self.period), other.longer(common // other.period)
        return Footprint(
            self.axis,
            common,
            tuple(map(min, one.low, two.low)),
            tuple(map(max, one.high, two.high)),
        )

    @property
    def halo(self) -> int:
        """How far the positions of a value of the input's own size see, at most."""
        return max(
            max(p - low, high - p)
            for p, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        )


def window(item: Footprint, kernel: int, stride: int, dilation: int, begin: int) -> Footprint:
    """Through a window of `kernel` taps that moves by `stride`, `begin` positions in front."""
    longer = item.longer(stride // math.gcd(len(item.low), stride))
    taps = [k * dilation - begin for k in range(kernel)]
    return longer.reading(
        len(longer.low) // stride, lambda p: [p * stride + tap for tap in taps], longer.period
    )


def transposed(item: Footprint, kernel: int, stride: int, dilation: int, begin: int) -> Footprint:
    """Through a transposed convolution, `begin` positions cut off."""

    def taps(p: int) -> list[int]:
        reached = [p + begin - k * dilation for k in range(kernel)]
        return [at // stride for at in reached if at % stride == 0]

    return item.reading(len(item.low) * stride, taps, item.period)


def copied(item: Footprint, times: int) -> Footprint:
    """Every position `times` times."""
    return item.reading(len(item.low) * times, lambda p: [p // times], item.period)


_Place = Callable[[int, Fraction], Fraction]
_COORDINATES: tuple[_Place, ...] = (
    lambda p, ratio: (p + Fraction(1, 2)) * ratio - Fraction(1, 2),  # half_pixel
    lambda p, ratio: p * ratio,  # asymmetric
)
_ROUNDINGS: tuple[Callable[[Fraction], int], ...] = (
    math.floor,
    math.ceil,
    lambda x: math.ceil(x - Fraction(1, 2)),
    lambda x: math.floor(x + Fraction(1, 2)),
)


Reader = Callable[[int], list[int]]
"""Output position -> the input positions it is made of, taking the axis as endless."""


def all_of(readers: Sequence[Reader]) -> Reader:
    """What any of the rules reads: they give the same positions inside, and may differ beyond."""
    return lambda p: [at for reader in readers for at in reader(p)]


def nearest_readers(sources: Sequence[int], size: int) -> list[Reader]:
    """Every rule that gives these sources."""
    ratio = Fraction(size, len(sources))

    def reader(place: _Place, rounded: Callable[[Fraction], int]) -> Reader:
        return lambda p: [rounded(place(p, ratio))]

    found = [reader(place, rounded) for place in _COORDINATES for rounded in _ROUNDINGS]
    return [
        read
        for read in found
        if all(at == min(max(read(p)[0], 0), size - 1) for p, at in enumerate(sources))
    ]


def linear_readers(taps: LinearTaps, size: int) -> list[Reader]:
    """Every rule that gives these taps."""
    ratio = Fraction(size, len(taps.first))
    found = [
        first + weight * (second - first)
        for first, second, weight in zip(taps.first, taps.second, taps.weights, strict=True)
    ]

    def reader(place: _Place) -> Reader:
        return lambda p: [math.floor(place(p, ratio)), math.ceil(place(p, ratio))]

    return [
        reader(place)
        for place in _COORDINATES
        if all(at == min(max(place(p, ratio), 0), size - 1) for p, at in enumerate(found))
    ]
