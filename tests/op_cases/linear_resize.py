from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from qcompile.ops import LinearResize, LinearTaps
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    Style,
    activation,
    pick,
    several,
    some,
    sum_case,
)
from tests.op_cases.case import OpCase


def half_pixel(size: int, positions: int) -> LinearTaps:
    first, second, weights = [], [], []
    for p in range(positions):
        at = (Fraction(2 * p + 1, 2) * Fraction(size, positions)) - Fraction(1, 2)
        at = min(max(at, Fraction(0)), Fraction(size - 1))
        index = math.floor(at)
        first.append(index)
        second.append(min(index + 1, size - 1))
        weights.append(at - index)
    return LinearTaps(tuple(first), tuple(second), tuple(weights))


def align_corners(size: int, positions: int) -> LinearTaps:
    first, second, weights = [], [], []
    for p in range(positions):
        at = Fraction(p * (size - 1), max(1, positions - 1))
        index = math.floor(at)
        first.append(index)
        second.append(min(index + 1, size - 1))
        weights.append(at - index)
    return LinearTaps(tuple(first), tuple(second), tuple(weights))


def _case(
    rng: np.random.Generator,
    name: str,
    sizes: tuple[int, ...],
    targets: tuple[int, ...],
    style: Style,
    fill: str,
) -> OpCase:
    x = activation(pick(rng, CODES), 1, some(rng, 1, 4), *sizes)
    mode = pick(rng, (half_pixel, align_corners))
    op = LinearResize(
        name="resize",
        inputs=("x",),
        outputs=("y",),
        taps=tuple(mode(size, target) for size, target in zip(sizes, targets, strict=True)),
    )
    return sum_case(rng, name, op, {"x": x}, {}, style, fill)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            axes = some(rng, 1, 2)
            sizes, targets = several(rng, axes, 1, 7), several(rng, axes, 1, 13)
            yield _case(rng, f"linear_resize_{index}", sizes, targets, style, fill)
        yield _case(rng, f"linear_resize_double_{index}", (5, 4), (10, 8), style, "random")
    yield _case(rng, "linear_resize3d", (2, 3, 2), (4, 5, 4), Style.TENSOR, "random")
