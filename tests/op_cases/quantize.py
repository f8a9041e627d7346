from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Quantize
from tests.op_cases.build import CODES, activation, float_type, one_op, pick, several, some
from tests.op_cases.case import OpCase

SPECIAL = (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-45, 0.49999997, 0.5, -0.5)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    """Special values first, then ties (codes and a half), then ordinary numbers."""
    for index in range(12):
        element = pick(rng, CODES)
        shape = (1, some(rng, 1, 3), *several(rng, some(rng, 0, 2), 4, 9))
        channels = shape[1] if index % 2 else 1
        # Powers of two make exact ties possible.
        inverse = tuple(
            float(2.0 ** some(rng, -2, 4)) if index % 3 == 0 else float(rng.uniform(0.1, 30.0))
            for _ in range(channels)
        )
        offset = tuple(
            0.5 if index % 3 == 0 else 0.5 + float(rng.normal()) for _ in range(channels)
        )
        low = element.low if index % 4 else max(element.low, min(1, element.high))
        op = Quantize(
            name="quantize",
            inputs=("x",),
            outputs=("y",),
            inverse=inverse,
            offset=offset,
            low=low,
            high=element.high,
        )
        values = rng.normal(0, max(element.high, 1) / inverse[0], shape)
        ties = rng.integers(element.low - 2, element.high + 3, shape) + 0.5
        values = np.where(rng.random(shape) < 0.4, ties / inverse[0], values).astype(np.float32)
        flat = values.reshape(-1)
        count = min(len(SPECIAL), flat.size // 2)
        flat[:count] = SPECIAL[:count]
        yield one_op(
            f"quantize_{index}",
            op,
            {"x": float_type(*shape)},
            {},
            activation(element, *shape),
            {"x": values},
        )
