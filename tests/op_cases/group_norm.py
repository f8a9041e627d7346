from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import GroupNorm, NormWidths
from qcompile.types import TensorType
from tests.op_cases.build import CODES, FILLS, STYLES, activation, pick, several, some, sum_case
from tests.op_cases.case import OpCase


def norm_widths(x: TensorType, groups: int, fraction_bits: int, root_bits: int) -> NormWidths:
    """Widths that keep `fraction_bits` of the normalised value."""
    count = x.size // groups
    span = x.integer.high - x.integer.low
    largest = math.isqrt((count * count * span * span) << (2 * root_bits)) + 1
    inverse_bits = largest.bit_length() + fraction_bits
    drop = max(0, inverse_bits - root_bits - fraction_bits)
    epsilon = max(1, (count * count) << (2 * root_bits) >> 14)
    return NormWidths(root_bits, epsilon, inverse_bits, drop)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            groups = some(rng, 1, 3)
            shape = (1, groups * some(rng, 1, 3), *several(rng, some(rng, 1, 2), 1, 6))
            x = activation(pick(rng, CODES), *shape)
            widths = norm_widths(x, groups, some(rng, 6, 12), some(rng, 0, 4))
            op = GroupNorm(
                name="norm",
                inputs=("x",),
                outputs=("y",),
                groups=groups,
                epsilon=1e-5,
                widths=widths,
            )
            yield sum_case(rng, f"group_norm_{index}", op, {"x": x}, {}, style, fill)
