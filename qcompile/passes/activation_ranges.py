"""How far an activation's codes reach: the scale chosen from calibration samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.numerics import round_half_up
from qcompile.options import RangeMethod
from qcompile.passes.calibrate import Statistics
from qcompile.passes.fake_quantize import quantized
from qcompile.types import Array, CodebookKind, CodeLimits, IntType

PERCENTILE = 99.99
GRID = np.linspace(0.15, 1.0, 52)
POWERS_BELOW = 6


@dataclass(frozen=True, slots=True)
class Member:
    """One of the tensors that share a scale: its statistics and the codes it may take.

    Attributes:
        start: where the codes of each channel begin, if not at the element's lowest.
        energy: how much an error in each channel matters; None if all matter alike.
        centred: whether a constant error of a channel does not count, since biases take it up.
    """

    statistics: Statistics
    element: IntType
    kind: CodebookKind
    start: Start | None = None
    energy: Array | None = None
    centred: bool = False

    def limits(self, scale: float) -> CodeLimits | None:
        return None if self.start is None else self.start.limits(scale, self.element)


@dataclass(frozen=True, slots=True)
class Start:
    """The real value at which each channel of a norm after a ReLU begins, and where it goes.

    y = gain * relu(z) + shift is `shift` for all negative z and lies on one side of it. So the
    `levels` codes of a channel start (or end, with a negative gain) at the code of its shift, and
    no code is spent on what never occurs.
    """

    shift: tuple[float, ...]
    rises: tuple[bool, ...]
    levels: int

    def limits(self, scale: float, element: IntType) -> CodeLimits:
        lows, highs = [], []
        for shift, rises in zip(self.shift, self.rises, strict=True):
            code = min(max(round_half_up(shift / scale), element.low), element.high)
            lows.append(code if rises else max(code - self.levels + 1, element.low))
            highs.append(min(code + self.levels - 1, element.high) if rises else code)
        return CodeLimits(tuple(lows), tuple(highs))


def choose_scale(members: Sequence[Member], method: RangeMethod, power_of_two: bool) -> float:
    """One scale for all members: the least sum of their mean squared errors over the candidates.

    All-zero tensors get scale 1.
    """
    if members[0].kind is CodebookKind.BINARY:
        magnitudes = [float(np.abs(m.statistics.sample).mean()) for m in members]
        return _rounded(max(magnitudes) or 1.0, power_of_two)
    widest = max(_needed(m, m.statistics.low, m.statistics.high) for m in members)
    if widest == 0:
        return 1.0
    cut = max(
        _needed(
            m,
            float(np.percentile(m.statistics.sample, 100 - PERCENTILE)),
            float(np.percentile(m.statistics.sample, PERCENTILE)),
        )
        for m in members
    )
    candidates: list[float] = []
    if method in (RangeMethod.MINMAX, RangeMethod.BEST):
        candidates.append(widest)
    if method in (RangeMethod.PERCENTILE, RangeMethod.BEST):
        candidates.append(cut or widest)
    if method in (RangeMethod.MSE, RangeMethod.BEST):
        candidates.extend(float(fraction) * widest for fraction in GRID)
    if power_of_two:
        candidates = sorted({_rounded(candidate, True) for candidate in candidates})
        if method in (RangeMethod.MSE, RangeMethod.BEST):
            top = candidates[-1]
            candidates = [top / 2**power for power in range(POWERS_BELOW)]
    errors = [sum(_error(member, scale) for member in members) for scale in candidates]
    best = candidates[int(np.argmin(errors))]
    # As float32, so that what equalisation made 1 is 1; where float32 still has all its digits.
    return float(np.float32(best)) if best > np.finfo(np.float32).tiny else best


def _needed(member: Member, low: float, high: float) -> float:
    """The smallest scale at which low..high is inside the member's codes."""
    element = member.element
    above = max(0.0, high) / element.high
    below = max(0.0, -low) / -element.low if element.low < 0 else 0.0
    widest = 0.0
    if member.start is not None:
        # Of a channel's values, counted from its start.
        lows, highs = member.statistics.lows, member.statistics.highs
        widest = float((highs - lows).max()) / (member.start.levels - 1)
    return max(above, below, widest)


def _rounded(scale: float, power_of_two: bool) -> float:
    return 2.0 ** math.ceil(math.log2(scale)) if power_of_two else scale


def _error(member: Member, scale: float) -> float:
    sample = member.statistics.sample
    if member.centred and member.start is not None:
        # Every channel starts on a code: its shift will be moved there.
        shift = np.asarray(member.start.shift, np.float32)
        limits = member.limits(scale)
        assert limits is not None
        rises = np.asarray(member.start.rises)
        codes = np.where(rises, limits.low, limits.high).astype(np.float32)
        moved = sample + (codes * np.float32(scale) - shift)
        error = quantized(moved, scale, member.element, limits) - moved
    else:
        error = quantized(sample, scale, member.element, member.limits(scale)) - sample
    of_channel = error.var(axis=0) if member.centred else np.square(error).mean(axis=0)
    if member.energy is not None:
        of_channel = of_channel * member.energy
    return float(of_channel.mean())
