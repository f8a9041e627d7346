from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Slice
from tests.op_cases.build import CODES, activation, movement_case, pick, several, some
from tests.op_cases.case import OpCase


def _range(rng: np.random.Generator, size: int) -> tuple[int, int, int]:
    step = pick(rng, (1, 1, 2, 3, -1, -2))
    start = some(rng, 0, size - 1)
    room = (size - 1 - start) // step if step > 0 else start // -step
    return start, some(rng, 1, room + 1), step


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        shape = (1, *several(rng, some(rng, 1, 3), 1, 7))
        parts = [(0, 1, 1), *(_range(rng, size) for size in shape[1:])]
        op = Slice(
            name="slice",
            inputs=("x",),
            outputs=("y",),
            starts=tuple(part[0] for part in parts),
            sizes=tuple(part[1] for part in parts),
            steps=tuple(part[2] for part in parts),
        )
        yield movement_case(rng, f"slice_{index}", op, {"x": activation(element, *shape)})
