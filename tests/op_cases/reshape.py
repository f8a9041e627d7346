from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Reshape
from tests.op_cases.build import CODES, activation, movement_case, pick, several
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        c, h, w = several(rng, 3, 1, 5)
        forms = ((1, c, h, w), (1, c, h * w), (1, c * h * w), (1, h, c * w), (1, c, 1, h, w))
        old, new = pick(rng, forms[:4]), pick(rng, forms[:4])
        if index == 0:
            old, new = forms[0], forms[4]
        op = Reshape(name="reshape", inputs=("x",), outputs=("y",), shape=new)
        name = f"reshape{'3d' if index == 0 else ''}_{index}"
        yield movement_case(rng, name, op, {"x": activation(element, *old)})
