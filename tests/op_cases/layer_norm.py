from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import LayerNorm
from tests.op_cases.build import CODES, FILLS, STYLES, activation, pick, several, some, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.group_norm import norm_widths


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            shape = (1, *several(rng, some(rng, 1, 3), 1, 7))
            axis = pick(rng, (1, len(shape) - 1))
            x = activation(pick(rng, CODES), *shape)
            row = activation(x.integer, shape[axis])
            widths = norm_widths(row, 1, some(rng, 6, 12), some(rng, 0, 4))
            op = LayerNorm(
                name="norm", inputs=("x",), outputs=("y",), axis=axis, epsilon=1e-5, widths=widths
            )
            yield sum_case(rng, f"layer_norm_{index}", op, {"x": x}, {}, style, fill)
