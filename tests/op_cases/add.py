from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Add
from tests.op_cases.broadcasting import two_shapes
from tests.op_cases.build import CODES, FILLS, STYLES, activation, codes, pick, some, sum_case
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            first, second = two_shapes(rng)
            types = {
                "a": activation(pick(rng, CODES), *first),
                "b": activation(pick(rng, CODES), *second),
            }
            weights = (some(rng, 1, 4000), some(rng, -4000, 4000))
            op = Add(name="add", inputs=("a", "b"), outputs=("y",), weights=weights)
            yield sum_case(rng, f"add_{index}", op, types, {}, style, fill)
        first, second = two_shapes(rng)
        types = {
            "a": activation(pick(rng, CODES), *first),
            "b": activation(pick(rng, CODES), *second),
        }
        constant = pick(rng, ("a", "b"))
        yield sum_case(
            rng,
            f"add_constant_{index}",
            Add(name="add", inputs=("a", "b"), outputs=("y",), weights=(3, -5)),
            types,
            {constant: codes(rng, types[constant])},
            style,
        )
    types = {"a": activation(pick(rng, CODES), 1, 3, 4, 5)}
    op = Add(name="add", inputs=("a", "a"), outputs=("y",), weights=(7, 2))
    yield sum_case(rng, "add_to_itself", op, types, {}, STYLES[0])
