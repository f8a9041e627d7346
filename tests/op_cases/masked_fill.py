from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import MaskedFill
from qcompile.types import MASK, Array, Shape, TensorType
from tests.op_cases.build import CODES, activation, codes, one_op, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, element in enumerate(CODES):
        shape = (1, *several(rng, some(rng, 1, 4), 1, 5))
        x = activation(element, *shape)
        kind, mask = mask_for(rng, shape)
        code = some(rng, element.low, element.high)
        op = MaskedFill(
            name="fill", inputs=("x", "mask"), outputs=("y",), value=code / 16, code=code
        )
        types = {"x": x, "mask": kind}
        yield one_op(f"fill_{index}", op, types, {"mask": mask}, x, {"x": codes(rng, x)})


def mask_for(rng: np.random.Generator, shape: Shape) -> tuple[TensorType, Array]:
    """A random mask that broadcasts to a shape."""
    sizes = tuple(size if rng.random() < 0.7 else 1 for size in shape[some(rng, 0, 1) :])
    return TensorType(sizes, MASK), rng.integers(0, 2, sizes).astype(MASK.storage)
