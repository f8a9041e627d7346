from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from qcompile.graph import Graph, Stage
from qcompile.ops import BatchMatMul, Softmax
from qcompile.types import Array, IntType, Quantization, Range, Shape
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    Style,
    activation,
    codes,
    pick,
    random_epilogue,
    several,
    some,
    sum_case,
)
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    op = BatchMatMul(name="product", inputs=("a", "b"), outputs=("y",))
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            first, second = _shapes(rng)
            types = {
                "a": activation(pick(rng, CODES), *first),
                "b": activation(pick(rng, CODES), *second),
            }
            constants: dict[str, Array] = {}
            if index % 3 == 0:
                which = pick(rng, ("a", "b"))
                constants[which] = codes(rng, types[which], fill)
            yield sum_case(rng, f"product_{index}", op, types, constants, style, fill)
    for bits in (8, 15):
        yield _attention(rng, bits)


def _shapes(rng: np.random.Generator) -> tuple[Shape, Shape]:
    """Matrices, batches of them, and batches that are broadcast."""
    rows, depth, columns = several(rng, 3, 1, 19)
    batch = several(rng, some(rng, 0, 3), 1, 3)
    a, b = pick(
        rng, ((batch, batch), (batch, ()), (batch[1:], batch), (batch, tuple(1 for _ in batch)))
    )
    return (*a, rows, depth), (*b, depth, columns)


def _attention(rng: np.random.Generator, bits: int) -> OpCase:
    """Rows of a softmax times values: their mass is what the accumulator is made for."""
    keys, size = 70, 5
    scores = activation(IntType(8), 1, 3, 9, keys)
    weights = activation(IntType(bits, signed=False), 1, 3, 9, keys)
    levels = weights.integer.high
    weights = dataclasses.replace(weights, quantization=Quantization.per_tensor(1 / levels))
    values = activation(IntType(8), 1, 3, keys, size)
    table = tuple(int(2**15 * np.exp(-d / 20) + 0.5) for d in range(256))
    softmax = Softmax(
        name="softmax", inputs=("s",), outputs=("a",), axis=3, table=table, levels=levels
    )
    op = BatchMatMul(
        name="product", inputs=("a", "v"), outputs=("y",), mass=levels + (keys + 1) // 2
    )
    reach = op.reach([weights, values], [None, None])
    epilogue = random_epilogue(rng, reach, size, IntType(8), Style.TENSOR)
    assert Range(-(1 << 23), 1 << 23).contains(reach)
    op = dataclasses.replace(op, epilogue=epilogue, accumulator=IntType.holding(reach))
    types = {"s": scores, "a": weights, "v": values, "y": activation(IntType(8), 1, 3, 9, size)}
    graph = Graph(f"attention_{bits}", Stage.INTEGER, ("s", "v"), ("y",), (softmax, op), types, {})
    feeds = {"s": codes(rng, scores), "v": codes(rng, values)}
    return OpCase(graph.name, graph, feeds)
