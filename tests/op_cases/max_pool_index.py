from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import MaxPoolIndex
from qcompile.types import IntType, Range, TensorType
from tests.op_cases.build import CODES, FILLS, activation, codes, one_op, some
from tests.op_cases.case import OpCase
from tests.op_cases.windows import random_window


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        axes = 3 if index == 0 else some(rng, 1, 2)
        window = random_window(rng, axes)
        x = activation(element, 1, some(rng, 1, 4), *window.spatial)
        op = MaxPoolIndex(
            name="index",
            inputs=("x",),
            outputs=("y",),
            kernel=window.kernel,
            strides=window.strides,
            pads_begin=window.pads_begin,
            pads_end=window.pads_end,
            dilations=window.dilations,
            ceil_mode=bool(rng.random() < 0.4),
        )
        found = IntType.holding(Range(0, math.prod(window.kernel) - 1))
        output = TensorType(op.infer_shape([x.shape]), found)
        fill = FILLS[index % 3] if index > 9 else "random"
        name = f"max_pool_index_{index}_{fill}"
        yield one_op(name, op, {"x": x}, {}, output, {"x": codes(rng, x, fill)})
