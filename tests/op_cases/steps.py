from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Steps
from tests.op_cases.case import OpCase
from tests.op_cases.lookup import pointwise_cases


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    limits, values = (-0.5, 0.0, 1.25), (-1.0, -0.5, 0.25, 0.0, 0.5, 1.0, -0.75)
    op = Steps(name="steps", inputs=("x",), outputs=("y",), limits=limits, values=values)
    return pointwise_cases(rng, op)
