from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import MaxUnpool
from qcompile.types import IntType, Range, TensorType
from tests.op_cases.build import CODES, activation, codes, one_op, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        axes = 3 if index == 0 else some(rng, 1, 2)
        kernel = several(rng, axes, 1, 3)
        dilations = several(rng, axes, 1, 2)
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        x = activation(element, 1, some(rng, 1, 4), *several(rng, axes, 1, 4))
        # Elements outside of the output, and indices that name nothing, move nothing.
        found = TensorType(x.shape, IntType.holding(Range(0, math.prod(kernel) - 1)))
        op = MaxUnpool(
            name="unpool",
            inputs=("x", "i"),
            outputs=("y",),
            kernel=kernel,
            strides=tuple(size + some(rng, 0, 1) for size in reach),
            pads_begin=several(rng, axes, 0, 1),
            dilations=dilations,
            spatial=several(rng, axes, 1, 9),
        )
        output = dataclasses.replace(x, shape=op.infer_shape([x.shape, x.shape]))
        types = {"x": x, "i": found}
        feeds = {name: codes(rng, kind) for name, kind in types.items()}
        yield one_op(f"max_unpool_{index}", op, types, {}, output, feeds)
