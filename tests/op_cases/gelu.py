from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Gelu
from tests.op_cases.case import OpCase
from tests.op_cases.lookup import pointwise_cases


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for tanh in (False, True):
        op = Gelu(name=f"gelu_{tanh}", inputs=("x",), outputs=("y",), tanh=tanh)
        yield from pointwise_cases(rng, op)
