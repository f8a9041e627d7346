from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import NearestResize
from tests.op_cases.build import CODES, activation, movement_case, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        axes = 3 if index == 0 else some(rng, 1, 2)
        sizes = several(rng, axes, 1, 5)
        if index % 3 == 0:
            sources = tuple(tuple(p // 2 for p in range(2 * size)) for size in sizes)
        else:
            sources = tuple(several(rng, some(rng, 1, 9), 0, size - 1) for size in sizes)
        x = activation(element, 1, some(rng, 1, 4), *sizes)
        op = NearestResize(name="nearest", inputs=("x",), outputs=("y",), sources=sources)
        name = f"nearest_resize{'3d' if axes == 3 else ''}_{index}"
        yield movement_case(rng, name, op, {"x": x})
