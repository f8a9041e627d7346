from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Threshold
from qcompile.types import IntType, TensorType
from tests.op_cases.build import CODES, activation, codes, one_op, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    """Limits inside the range of codes, and just beyond both ends."""
    for index, element in enumerate(CODES):
        x = activation(element, 1, *several(rng, some(rng, 1, 3), 1, 6))
        limit = (element.low - 1, element.high, some(rng, element.low, element.high))[index % 3]
        op = Threshold(
            name="threshold",
            inputs=("x",),
            outputs=("y",),
            limit=limit * 0.0625,
            code_limit=limit,
        )
        output = TensorType(x.shape, IntType(1, signed=False))
        yield one_op(f"threshold_{index}", op, {"x": x}, {}, output, {"x": codes(rng, x)})
