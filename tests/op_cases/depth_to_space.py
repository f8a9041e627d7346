from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import DepthToSpace
from tests.op_cases.build import CODES, activation, movement_case, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES[::2]):
        block = some(rng, 1, 3)
        for column_major in (False, True):
            shape = (1, some(rng, 1, 3) * block * block, some(rng, 1, 4), some(rng, 1, 4))
            op = DepthToSpace(
                name="depth_to_space",
                inputs=("x",),
                outputs=("y",),
                block=block,
                column_major=column_major,
            )
            name = f"depth_to_space_{index}_{'crd' if column_major else 'dcr'}"
            yield movement_case(rng, name, op, {"x": activation(element, *shape)})
