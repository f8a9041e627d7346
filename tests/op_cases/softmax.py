from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import Softmax
from qcompile.types import IntType
from tests.op_cases.build import activation, codes, one_op, pick, several, small_codes, some
from tests.op_cases.case import OpCase
from tests.op_cases.masked_fill import mask_for


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index in range(16):
        element = small_codes(rng)
        rank = some(rng, 2, 4)
        axis = some(rng, 1, rank - 1)
        x = activation(element, 1, *several(rng, rank - 1, 1, 6))
        scale = float(rng.uniform(0.01, 1.0))
        table = tuple(
            math.floor(2**15 * math.exp(-d * scale) + 0.5)
            for d in range(element.high - element.low + 1)
        )
        output = IntType(pick(rng, (2, 4, 8, 8, 16)), signed=False)
        types, constants = {"x": x}, {}
        if index % 3 == 0:
            types["mask"], constants["mask"] = mask_for(rng, x.shape)
        op = Softmax(
            name="softmax",
            inputs=tuple(types),
            outputs=("y",),
            axis=axis,
            table=table,
            levels=output.high,
        )
        fill = ("random", "random", "low", "high")[index % 4]
        feeds = {"x": codes(rng, x, fill)}
        made = activation(output, *x.shape)
        yield one_op(f"softmax_{index}_{fill}", op, types, constants, made, feeds)
