from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Concat
from tests.op_cases.build import CODES, activation, movement_case, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        shape = (1, *several(rng, some(rng, 1, 3), 1, 5))
        axis = 1 if index % 2 else some(rng, 1, len(shape) - 1)
        names = tuple(f"x{i}" for i in range(some(rng, 1, 4)))
        types = {
            name: activation(element, *shape[:axis], some(rng, 1, 5), *shape[axis + 1 :])
            for name in names
        }
        op = Concat(name="concat", inputs=names, outputs=("y",), axis=axis)
        yield movement_case(rng, f"concat_{index}", op, types)
    twice = Concat(name="concat", inputs=("x", "x"), outputs=("y",), axis=1)
    yield movement_case(rng, "concat_twice", twice, {"x": activation(CODES[3], 1, 3, 4, 5)})
