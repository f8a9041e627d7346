from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import MatMul
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    activation,
    pick,
    several,
    some,
    sum_case,
    weights,
)
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            inner, outer = some(rng, 1, 40), some(rng, 1, 9)
            rows = (1, *several(rng, some(rng, 0, 2), 1, 5))
            x = activation(pick(rng, CODES), *rows, inner)
            w, data = weights(rng, (inner, outer), 1, outer, fill)
            op = MatMul(name="matmul", inputs=("x", "w"), outputs=("y",))
            yield sum_case(rng, f"matmul_{index}", op, {"x": x, "w": w}, {"w": data}, style, fill)
