"""Random pooling windows in which every position sees at least one element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.op_cases.build import several, some


@dataclass(frozen=True)
class Window:
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]


def random_window(rng: np.random.Generator, axes: int) -> Window:
    kernel = several(rng, axes, 1, 3)
    dilations = several(rng, axes, 1, 2)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    return Window(
        tuple(size + some(rng, 2, 7) for size in reach),
        kernel,
        several(rng, axes, 1, 3),
        tuple(some(rng, 0, min(size, k - 1)) for size, k in zip(reach, kernel, strict=True)),
        tuple(some(rng, 0, min(size, k - 1)) for size, k in zip(reach, kernel, strict=True)),
        dilations,
    )
