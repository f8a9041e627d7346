from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Sqrt
from tests.op_cases.case import OpCase
from tests.op_cases.lookup import pointwise_cases


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    return pointwise_cases(rng, Sqrt(name="sqrt", inputs=("x",), outputs=("y",)))
