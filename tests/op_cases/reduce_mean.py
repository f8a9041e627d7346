from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import ReduceMean
from tests.op_cases.build import CODES, FILLS, STYLES, activation, pick, several, some, sum_case
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            shape = (1, *several(rng, 3, 1, 6))
            axes, keep = pick(
                rng, (((2, 3), True), ((3,), True), ((1,), True), ((2, 3), False), ((2,), False))
            )
            x = activation(pick(rng, CODES), *shape)
            op = ReduceMean(name="mean", inputs=("x",), outputs=("y",), axes=axes, keepdims=keep)
            yield sum_case(rng, f"reduce_mean_{index}", op, {"x": x}, {}, style, fill)
    x = activation(pick(rng, CODES), 1, some(rng, 1, 9))
    last = ReduceMean(name="mean", inputs=("x",), outputs=("y",), axes=(1,))
    yield sum_case(rng, "reduce_mean_rank2", last, {"x": x}, {}, STYLES[0])
