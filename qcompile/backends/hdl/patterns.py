"""The operators that gather, as patterns along each axis (`hw/axis.py`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.hw.axis import AxisPattern, copying, sliding
from qcompile.ops import AveragePool, Conv, ConvTranspose, LinearTaps, MaxPool

SpatialOp = Conv | MaxPool | AveragePool


@dataclass(frozen=True, slots=True)
class WeightedPattern:
    """A pattern and, for each phase, what its taps take.

    `choices[phase][tap]` is an index of a kernel tap (None: weight 0) or an integer weight,
    whichever the operator has.
    """

    pattern: AxisPattern
    choices: tuple[tuple[int | None, ...], ...]


def window_axis(op: SpatialOp, axis: int, kernel: int, size: int, positions: int) -> AxisPattern:
    """The sliding window of a convolution or pool along spatial axis `axis`."""
    return sliding(
        size, kernel, op.strides[axis], op.dilations[axis], op.pads_begin[axis], positions
    )


def transposed_axis(
    op: ConvTranspose, axis: int, kernel: int, size: int, positions: int
) -> WeightedPattern:
    """Gathering form of a transposed convolution.

    Output position p adds kernel tap k times input i wherever i * stride + k * dilation = p + pad.
    With g = gcd(stride, dilation), neighbouring solutions differ by stride / g in k and by
    -dilation / g in i: a window whose phase says which kernel taps meet inputs. Where that window
    would move backwards (dilation beyond the stride), one over all inputs between serves.
    """
    stride, dilation, pad = op.strides[axis], op.dilations[axis], op.pads_begin[axis]
    common = math.gcd(stride, dilation)
    step, jump = dilation // common, stride // common
    # For each output position: input position -> kernel tap.
    solutions = [
        {
            (position + pad - k * dilation) // stride: k
            for k in range(kernel)
            if (position + pad - k * dilation) % stride == 0
        }
        for position in range(positions)
    ]
    taps = -(-kernel // jump)
    bases = [max(found, default=0) - (taps - 1) * step for found in solutions]
    for position, found in enumerate(solutions):
        if not found:
            bases[position] = bases[position - 1] if position else -(taps * step)
    if any(later < earlier for earlier, later in itertools.pairwise(bases)):
        step = 1
        bases, lowest = [], size
        for found in reversed(solutions):
            lowest = min([lowest, *found])
            bases.insert(0, lowest)
        taps = max(
            max(found, default=base) - base + 1
            for base, found in zip(bases, solutions, strict=True)
        )
    choices = [
        tuple(found.get(base + j * step) for j in range(taps))
        for base, found in zip(bases, solutions, strict=True)
    ]
    return _phased(size, taps, step, bases, choices)


def linear_axis(taps: LinearTaps, size: int) -> WeightedPattern:
    """Linear interpolation: two neighbouring taps with integer weights.

    Where the upper tap counts nothing, the window stays one position lower, so that it never waits
    for an input that it does not need.

    Raises:
        ValueError: the two taps of a position are no neighbours.
    """
    bases: list[int] = []
    weights: list[tuple[int | None, ...]] = []
    for first, second, (low, high) in zip(
        taps.first, taps.second, taps.integer_weights(), strict=True
    ):
        if first == second or high == 0:
            bases.append(first - 1)
            weights.append((0, low + high if first == second else low))
        elif second == first + 1:
            bases.append(first)
            weights.append((low, high))
        else:
            raise ValueError("the two taps of a position are no neighbours")
    return _phased(size, 2, 1, bases, weights)


def average_axis(op: AveragePool, axis: int, size: int, positions: int) -> WeightedPattern:
    """A pool whose taps are scaled to the least common multiple of the divisors of this axis."""
    pattern = window_axis(op, axis, op.kernel[axis], size, positions)
    spatial_in = [1] * len(op.kernel)
    spatial_out = [1] * len(op.kernel)
    spatial_in[axis], spatial_out[axis] = size, positions
    counts = op.divisors(spatial_in, spatial_out)[axis]
    common = math.lcm(*counts)
    weights = [(common // count,) * op.kernel[axis] for count in counts]
    return _phased(size, pattern.taps, pattern.step, pattern.base, weights)


def copied_axis(size: int, sources: Sequence[int]) -> AxisPattern:
    """Positions that copy one input position each (outside: padding).

    Raises:
        ValueError: the sources descend.
    """
    return copying(size, sources)


def _phased(
    size: int,
    taps: int,
    step: int,
    bases: Sequence[int],
    choices: Sequence[tuple[int | None, ...]],
) -> WeightedPattern:
    """One phase for each different set of choices."""
    sets = list(dict.fromkeys(choices))
    phase = tuple(sets.index(item) for item in choices)
    return WeightedPattern(AxisPattern(size, taps, step, tuple(bases), phase), tuple(sets))
