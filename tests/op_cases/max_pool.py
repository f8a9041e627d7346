from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import MaxPool
from tests.op_cases.build import CODES, FILLS, activation, movement_case, some
from tests.op_cases.case import OpCase
from tests.op_cases.windows import random_window


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        axes = 3 if index == 0 else some(rng, 1, 2)
        window = random_window(rng, axes)
        x = activation(element, 1, some(rng, 1, 4), *window.spatial)
        op = MaxPool(
            name="max_pool",
            inputs=("x",),
            outputs=("y",),
            kernel=window.kernel,
            strides=window.strides,
            pads_begin=window.pads_begin,
            pads_end=window.pads_end,
            dilations=window.dilations,
            ceil_mode=bool(rng.random() < 0.4),
        )
        name = f"max_pool{'3d' if axes == 3 else ''}_{index}"
        yield movement_case(rng, name, op, {"x": x}, FILLS[index % 3] if index > 9 else "random")
    x = activation(CODES[5], 1, 5, 6, 8)
    pair = MaxPool(
        name="max_pool",
        inputs=("x",),
        outputs=("y",),
        kernel=(2, 2),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    yield movement_case(rng, "max_pool_2x2", pair, {"x": x})
