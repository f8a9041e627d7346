"""How far an activation's codes reach: the scale chosen from calibration samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.options import RangeMethod
from qcompile.passes.calibrate import Statistics
from qcompile.types import Array, CodebookKind, IntType

PERCENTILE = 99.99
GRID = np.linspace(0.15, 1.0, 52)
POWERS_BELOW = 6


@dataclass(frozen=True, slots=True)
class Member:
    """One of the tensors that share a scale: its statistics and the codes it may take."""

    statistics: Statistics
    element: IntType
    kind: CodebookKind


def choose_scale(members: Sequence[Member], method: RangeMethod, power_of_two: bool) -> float:
    """One scale for all members: the least sum of their mean squared errors over the candidates.

    All-zero tensors get scale 1.
    """
    if members[0].kind is CodebookKind.BINARY:
        magnitudes = [float(np.abs(m.statistics.sample).mean()) for m in members]
        return _rounded(max(magnitudes) or 1.0, power_of_two)
    widest = max(_needed(m.element, m.statistics.low, m.statistics.high) for m in members)
    if widest == 0:
        return 1.0
    cut = max(
        _needed(
            m.element,
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
    return candidates[int(np.argmin(errors))]


def _needed(element: IntType, low: float, high: float) -> float:
    """The smallest scale at which low..high is inside the element's codes."""
    above = max(0.0, high) / element.high
    below = max(0.0, -low) / -element.low if element.low < 0 else 0.0
    return max(above, below)


def _rounded(scale: float, power_of_two: bool) -> float:
    return 2.0 ** math.ceil(math.log2(scale)) if power_of_two else scale


def _error(member: Member, scale: float) -> float:
    sample = member.statistics.sample
    return float(np.square(quantized(sample, scale, member.element) - sample).mean())


def quantized(values: Array, scale: float, element: IntType) -> Array:
    """Values rounded to the grid and back (float32), as the integer network would hold them."""
    with np.errstate(over="ignore"):  # of subnormal scales: clipped below
        codes: Array = np.floor(values * np.float32(1 / scale) + np.float32(0.5))
    np.clip(codes, element.low, element.high, out=codes)
    codes *= np.float32(scale)
    return codes
