from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import AveragePool
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    Style,
    activation,
    pick,
    some,
    sum_case,
)
from tests.op_cases.case import OpCase
from tests.op_cases.windows import random_window


def _case(rng: np.random.Generator, name: str, axes: int, style: Style, fill: str) -> OpCase:
    window = random_window(rng, axes)
    x = activation(pick(rng, CODES), 1, some(rng, 1, 4), *window.spatial)
    op = AveragePool(
        name=name,
        inputs=("x",),
        outputs=("y",),
        kernel=window.kernel,
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        dilations=window.dilations,
        ceil_mode=bool(rng.random() < 0.4),
        count_include_pad=bool(rng.random() < 0.4),
    )
    return sum_case(rng, name, op, {"x": x}, {}, style, fill)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            yield _case(rng, f"average_pool_{index}", 2, style, fill)
        yield _case(rng, f"average_pool_1d_{index}", 1, style, "random")
    yield _case(rng, "average_pool3d", 3, Style.TENSOR, "random")
