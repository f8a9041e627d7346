from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Transpose
from tests.op_cases.build import CODES, activation, movement_case, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        shape = (1, *several(rng, some(rng, 1, 3), 1, 5))
        order = (0, *(1 + int(axis) for axis in rng.permutation(len(shape) - 1)))
        op = Transpose(name="transpose", inputs=("x",), outputs=("y",), permutation=order)
        yield movement_case(rng, f"transpose_{index}", op, {"x": activation(element, *shape)})
