from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Rescale
from tests.op_cases.build import CODES, FILLS, STYLES, activation, pick, several, some, sum_case
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            x = activation(pick(rng, CODES), 1, *several(rng, some(rng, 0, 3), 1, 6))
            op = Rescale(name="rescale", inputs=("x",), outputs=("y",))
            yield sum_case(rng, f"rescale_{index}", op, {"x": x}, {}, style, fill)
