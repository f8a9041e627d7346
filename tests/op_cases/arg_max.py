from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import ArgMax
from qcompile.types import IntType, Range, TensorType
from tests.op_cases.build import CODES, activation, codes, one_op, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    """Narrow types have many ties."""
    for index, element in enumerate(CODES):
        x = activation(element, 1, *several(rng, some(rng, 2, 3), 1, 6))
        axis = 1 if index % 2 else some(rng, 1, x.rank - 1)
        op = ArgMax(
            name="arg_max",
            inputs=("x",),
            outputs=("y",),
            axis=axis,
            keepdims=bool(rng.random() < 0.5),
            last=bool(rng.random() < 0.4),
        )
        output = TensorType(
            op.infer_shape([x.shape]), IntType.holding(Range(0, max(1, x.shape[axis] - 1)))
        )
        yield one_op(f"arg_max_{index}", op, {"x": x}, {}, output, {"x": codes(rng, x)})
