from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Lookup
from qcompile.ops.pointwise import Pointwise
from qcompile.types import UINT8, Array, IntType, TensorType
from tests.op_cases.build import CODES, activation, codes, one_op, pick, several, small_codes, some
from tests.op_cases.case import OpCase


def table_case(
    rng: np.random.Generator, name: str, x: TensorType, output: IntType, table: Array
) -> OpCase:
    kind = TensorType(table.shape, output)
    op = Lookup(name="lookup", inputs=("x", "table"), outputs=("y",), lowest=x.integer.low)
    return one_op(
        name,
        op,
        {"x": x, "table": kind},
        {"table": table},
        activation(output, *x.shape),
        {"x": codes(rng, x)},
    )


def pointwise_cases(rng: np.random.Generator, function: Pointwise) -> Iterator[OpCase]:
    """The tables that a scalar function becomes."""
    for index in range(4):
        element, output = small_codes(rng), small_codes(rng)
        x = activation(element, 1, *several(rng, some(rng, 1, 3), 1, 5))
        real = function.function(np.arange(element.low, element.high + 1) * 0.0625)
        table = np.clip(np.floor(real * output.high + 0.5), output.low, output.high)
        name = f"{type(function).__name__.lower()}_{index}"
        yield table_case(rng, name, x, output, table.astype(output.storage))


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index in range(16):
        # The first cases are the boundary: uint8 pixels, one table or one for each channel.
        element = UINT8 if index < 4 else small_codes(rng)
        output = pick(rng, CODES)
        x = activation(element, 1, *several(rng, some(rng, 1, 3), 1, 6))
        if index < 4:
            x = TensorType(x.shape, UINT8)
        length = element.high - element.low + 1
        shape = (length,) if index % 2 else (x.shape[1], length)
        table = codes(rng, TensorType(shape, output))
        suffix = "" if index % 2 else "_channel"
        yield table_case(rng, f"lookup_{index}{suffix}", x, output, table)
