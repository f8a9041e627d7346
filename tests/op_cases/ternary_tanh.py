from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import TernaryTanh
from tests.op_cases.case import OpCase
from tests.op_cases.lookup import pointwise_cases


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    op = TernaryTanh(name="ternary_tanh", inputs=("x",), outputs=("y",), beta=3.0)
    return pointwise_cases(rng, op)
