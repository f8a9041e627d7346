from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Affine
from qcompile.types import IntType, TensorType
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    activation,
    codes,
    pick,
    several,
    some,
    sum_case,
)
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            channels = some(rng, 1, 7)
            x = activation(pick(rng, CODES), 1, channels, *several(rng, some(rng, 0, 3), 1, 5))
            scale = TensorType((channels,), IntType(pick(rng, (8, 12, 16))))
            op = Affine(name="affine", inputs=("x", "scale"), outputs=("y",))
            yield sum_case(
                rng,
                f"affine_{index}",
                op,
                {"x": x, "scale": scale},
                {"scale": codes(rng, scale)},
                style,
                fill,
            )
