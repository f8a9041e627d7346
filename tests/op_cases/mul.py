from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Mul
from tests.op_cases.broadcasting import two_shapes
from tests.op_cases.build import CODES, FILLS, STYLES, activation, codes, pick, sum_case
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            first, second = two_shapes(rng)
            types = {
                "a": activation(pick(rng, CODES), *first),
                "b": activation(pick(rng, CODES), *second),
            }
            op = Mul(name="mul", inputs=("a", "b"), outputs=("y",))
            yield sum_case(rng, f"mul_{index}", op, types, {}, style, fill)
        first, second = two_shapes(rng)
        types = {
            "a": activation(pick(rng, CODES), *first),
            "b": activation(pick(rng, CODES), *second),
        }
        constant = pick(rng, ("a", "b"))
        yield sum_case(
            rng,
            f"mul_constant_{index}",
            Mul(name="mul", inputs=("a", "b"), outputs=("y",)),
            types,
            {constant: codes(rng, types[constant])},
            style,
        )
    types = {"a": activation(pick(rng, CODES), 1, 3, 4, 5)}
    op = Mul(name="mul", inputs=("a", "a"), outputs=("y",))
    yield sum_case(rng, "mul_by_itself", op, types, {}, STYLES[0])
