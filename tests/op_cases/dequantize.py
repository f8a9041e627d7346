from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from qcompile.ops import Dequantize
from qcompile.types import Quantization
from tests.op_cases.build import (
    CODES,
    FILLS,
    activation,
    codes,
    float_type,
    one_op,
    several,
    some,
)
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        x = activation(element, 1, *several(rng, some(rng, 1, 3), 1, 6))
        scale = float(np.float32(rng.uniform(1e-4, 3.0)))
        x = dataclasses.replace(x, quantization=Quantization.per_tensor(scale))
        op = Dequantize(name="dequantize", inputs=("x",), outputs=("y",), scale=scale)
        yield one_op(
            f"dequantize_{index}",
            op,
            {"x": x},
            {},
            float_type(*x.shape),
            {"x": codes(rng, x, FILLS[index % 3])},
        )
