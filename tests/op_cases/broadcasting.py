"""Shapes of the operators with two broadcast inputs."""

from __future__ import annotations

import numpy as np

from qcompile.types import Shape
from tests.op_cases.build import pick, several, some


def two_shapes(rng: np.random.Generator) -> tuple[Shape, Shape]:
    """Equal shapes, a map per pixel, a value per channel, fewer axes, or stretching both ways."""
    spatial = several(rng, some(rng, 0, 2), 2, 5)
    channels = some(rng, 2, 5)
    full = (1, channels, *spatial)
    first, second = pick(
        rng,
        (
            (full, full),
            (full, full),
            (full, (1, 1, *spatial)),
            (full, (1, channels, *(1 for _ in spatial))),
            (full, (channels, *(1 for _ in spatial))),
            ((1, channels, *(1 for _ in spatial)), (1, 1, *spatial)),
            (full, (1,)),
        ),
    )
    return (first, second) if rng.random() < 0.7 else (second, first)
