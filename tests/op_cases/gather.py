from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Gather
from tests.op_cases.build import CODES, activation, movement_case, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        shape = (1, *several(rng, some(rng, 1, 4), 1, 5))
        axis = some(rng, 0, len(shape) - 1)
        indices = several(rng, some(rng, 1, 7), 0, shape[axis] - 1)
        op = Gather(name="gather", inputs=("x",), outputs=("y",), axis=axis, indices=indices)
        yield movement_case(rng, f"gather_{index}", op, {"x": activation(element, *shape)})
