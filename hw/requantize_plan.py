"""How a multiply-shift epilogue is built: widths, common shift, multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from qcompile.numerics import Requantize
from qcompile.types import IntType, Range

MULTIPLIER_BITS = 18
"""Signed operands of a hardware multiplier."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Factor and bias of one line, one entry per channel.

    Where all factors are zero or powers of two: sum * multiplier + bias =
    ((sum & keep) ^ flip) << exponent + offset, with masks keep and flip of one bit.
    """

    multipliers: tuple[int, ...]
    biases: tuple[int, ...]

    @property
    def keep(self) -> tuple[int, ...]:
        return tuple(int(m != 0) for m in self.multipliers)

    @property
    def flip(self) -> tuple[int, ...]:
        return tuple(int(m < 0) for m in self.multipliers)

    @property
    def exponents(self) -> tuple[int, ...]:
        return tuple(max(0, abs(m).bit_length() - 1) for m in self.multipliers)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Biases with what ~x = -x - 1 lacks."""
        pairs = zip(self.multipliers, self.biases, strict=True)
        return tuple(bias - m if m < 0 else bias for m, bias in pairs)


@dataclass(frozen=True, slots=True)
class Plan:
    """A `numerics.Requantize` in the form that is built; every vector has one entry per channel.

    y = clamp((a * m + b) >> (shift + extra), lows, highs) where a is the sum, limited to `sums` if
    `saturates`. If it `moves`, y = clamp(clamp(...) + starts, ends).

    * The clamp of the sum is left out: it never changes y for a sum within its proven range, which
      is all that arrives. Where it saves a multiplier, the sum is limited to the smallest width
      that holds acc_low .. acc_high of every channel, which is exact for the same reason and needs
      no comparator.
    * Shifts that differ are made equal by scaling multiplier and bias, which is exact, as long as
      that needs no further multiplier; else `extra` is what a channel shifts further.
    * Zeros at the end of all multipliers are dropped, and the same number of bits of the biases:
      floor((a * 2**t * m + b) / 2**s) = floor((a * m + floor(b / 2**t)) / 2**(s - t)).
    * Where the codes of all channels are equally many but begin elsewhere, the biases count from
      that beginning, so that all channels are limited alike, and `starts` is added afterwards.
      Channels that the lowest or highest code of all cuts short are cut by `ends`.
    """

    sums: Range
    saturates: bool
    branches: tuple[Branch, ...]
    pivots: tuple[int, ...]
    shift: int
    extra: tuple[int, ...]
    products: Range
    totals: Range
    shifted: Range
    lows: tuple[int, ...]
    highs: tuple[int, ...]
    starts: tuple[int, ...]
    ends: Range
    powers: bool

    @property
    def multipliers(self) -> int:
        """Hardware multipliers for one lane: each takes 18 x 18 bits, signed, and of a wider
        operand 17 bits more with each further one."""
        if self.powers:
            return 0
        return pieces(signed_bits(self.sums)) * pieces(signed_bits(self.factors))

    @property
    def factors(self) -> Range:
        values = [m for branch in self.branches for m in branch.multipliers]
        return Range(min(values), max(values))

    @property
    def negative(self) -> bool:
        return len(self.branches) == 2

    @property
    def clamps(self) -> bool:
        return self.shifted.low < max(self.lows) or self.shifted.high > min(self.highs)

    @property
    def moves(self) -> bool:
        """Some channel does not start at 0, see `starts`."""
        return any(self.starts)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """What the arithmetic takes for each channel, by name."""
        vectors: dict[str, tuple[int, ...]] = {}
        for name, branch in zip(("", "negative_"), self.branches, strict=False):
            if self.powers:
                vectors[f"{name}keep"] = branch.keep
                vectors[f"{name}flip"] = branch.flip
                vectors[f"{name}exponent"] = branch.exponents
                vectors[f"{name}bias"] = branch.offsets
            else:
                vectors[f"{name}multiplier"] = branch.multipliers
                vectors[f"{name}bias"] = branch.biases
        if self.negative:
            vectors["pivot"] = self.pivots
        vectors["extra"] = self.extra
        if self.clamps:
            vectors["low"], vectors["high"] = self.lows, self.highs
        if self.moves:
            vectors["start"] = self.starts
        return vectors

    def columns(self, lanes: int) -> dict[str, tuple[int, ...]]:
        """The parameters as one word for each `lanes` channels: `<name>_<lane>`."""
        return {
            f"{name}_{lane}": values[lane::lanes]
            for lane in range(lanes)
            for name, values in self.parameters.items()
        }


@lru_cache(maxsize=4096)
def plan(epilogue: Requantize, accumulator: IntType, channels: int) -> Plan:
    """How an epilogue of sums of type `accumulator` is built.

    Raises:
        ValueError: a vector has neither one entry nor one per channel.
    """

    def spread(values: Sequence[int]) -> tuple[int, ...]:
        if len(values) not in (1, channels):
            raise ValueError(f"{len(values)} parameters for {channels} channels")
        return tuple(values) * channels if len(values) == 1 else tuple(values)

    lines = [(spread(epilogue.multipliers), spread(epilogue.biases))]
    pivots: tuple[int, ...] = ()
    if epilogue.negative is not None:
        below = epilogue.negative
        lines.append((spread(below.multipliers), spread(below.biases)))
        pivots = spread(below.pivots)
    shifts, lows, highs = (spread(v) for v in (epilogue.shifts, epilogue.lows, epilogue.highs))
    ends = epilogue.output_range()
    starts = _starts(lows, highs) or (0,) * channels
    if any(starts):
        widest = max(high - low for low, high in zip(lows, highs, strict=True))
        lows, highs = (0,) * channels, (widest,) * channels
        lines = [
            (line, tuple(b - (n << s) for b, n, s in zip(biases, starts, shifts, strict=True)))
            for line, biases in lines
        ]
    factors = [m for line, _ in lines for m in line]
    widest = max(shifts)
    powers = all(abs(m).bit_count() <= 1 for m in factors)
    scaled = [m << (widest - s) for line, _ in lines for m, s in zip(line, shifts, strict=True)]
    if powers or _pieces_of(scaled) == _pieces_of(factors):
        lines = [
            (
                tuple(m << (widest - s) for m, s in zip(line, shifts, strict=True)),
                tuple(b << (widest - s) for b, s in zip(biases, shifts, strict=True)),
            )
            for line, biases in lines
        ]
        factors, shifts = scaled, (widest,) * channels
    drop = min([(m & -m).bit_length() - 1 for m in factors if m] or [min(shifts)])
    drop = min(drop, *shifts)
    branches = tuple(
        Branch(tuple(m >> drop for m in line), tuple(b >> drop for b in biases))
        for line, biases in lines
    )
    shifts = tuple(s - drop for s in shifts)

    sums = accumulator.range
    live = Range(min(epilogue.acc_low), max(epilogue.acc_high))
    bits = signed_bits(live)
    saturates = not powers and pieces(bits) < pieces(signed_bits(sums))
    if saturates:
        live = IntType(bits).range
        sums = Range(max(sums.low, live.low), min(sums.high, live.high))
    products = totals = Range(0, 0)
    shifted: Range | None = None
    for branch in branches:
        for m, b, s in zip(branch.multipliers, branch.biases, shifts, strict=True):
            product = sums.scaled(m)
            if powers and m < 0:  # ~x reaches one further than -x.
                product = product + Range(m, 0)
            total = product + Range(b, b)
            code = Range(total.low >> s, total.high >> s)
            products = products.union(product)
            totals = totals.union(total)
            shifted = code if shifted is None else shifted.union(code)
    assert shifted is not None
    return Plan(
        sums=sums,
        saturates=saturates,
        branches=branches,
        # Equal for every sum, and hardly wider than it.
        pivots=tuple(min(max(pivot, sums.low), sums.high + 1) for pivot in pivots),
        shift=min(shifts),
        extra=tuple(s - min(shifts) for s in shifts),
        products=products,
        totals=totals,
        shifted=shifted,
        lows=lows,
        highs=highs,
        starts=starts,
        ends=ends,
        powers=powers,
    )


def _starts(lows: Sequence[int], highs: Sequence[int]) -> tuple[int, ...] | None:
    """Where a window of constant width begins in each channel, so that it gives the channel's codes
    once it is cut to the codes of all; None if there are no such places or no need of them."""
    if len(set(lows)) == len(set(highs)) == 1:
        return None
    widest = max(high - low for low, high in zip(lows, highs, strict=True))
    starts = []
    for low, high in zip(lows, highs, strict=True):
        if high - low == widest or high == max(highs):
            starts.append(low)
        elif low == min(lows):
            starts.append(high - widest)
        else:
            return None
    return tuple(starts)


def signed_bits(values: Range) -> int:
    """Bits of two's complement for a range."""
    return 1 + max(max(-values.low - 1, 0).bit_length(), max(values.high, 0).bit_length())


def pieces(bits: int) -> int:
    """Multiplier operands for a signed number: lower ones have 17 bits, as they lack the sign."""
    return 1 + max(0, -(-(bits - MULTIPLIER_BITS) // (MULTIPLIER_BITS - 1)))


def _pieces_of(values: Sequence[int]) -> int:
    return pieces(signed_bits(Range(min(values), max(values))))
