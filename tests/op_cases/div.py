from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Div
from tests.op_cases.broadcasting import two_shapes
from tests.op_cases.build import CODES, FILLS, STYLES, activation, pick, some, sum_case
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    """Small denominator types contain code 0 often."""
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            first, second = two_shapes(rng)
            types = {
                "a": activation(pick(rng, CODES), *first),
                "b": activation(pick(rng, CODES), *second),
            }
            bits = pick(rng, (0, some(rng, 1, 8), 16))
            op = Div(name="div", inputs=("a", "b"), outputs=("y",), fraction_bits=bits)
            yield sum_case(rng, f"div_{index}", op, types, {}, style, fill)
