"""How much an error in each channel of a value matters to the layers that read it."""

from __future__ import annotations

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import (
    WEIGHTED,
    Add,
    Concat,
    LinearResize,
    MatMul,
    MaxPool,
    NearestResize,
)
from qcompile.passes.weight_rows import to_columns
from qcompile.types import Array

_SAME_CHANNELS: tuple[type[Op], ...] = (MaxPool, NearestResize, LinearResize)


def reader_energy(graph: Graph, value: str) -> Array | None:
    """The sum of the squares of all float weights that read each channel of `value` [channels].

    Independent errors of variance v in a channel reach the sums behind it with v times this. None
    where something else than a weighted layer reads the value, too.
    """
    if value in graph.outputs or graph.types[value].rank < 2:
        return None
    channels = graph.types[value].shape[1]
    total = np.zeros(channels)
    for op in graph.consumers[value]:
        part = _energy(graph, op, value)
        if part is None:
            return None
        total += part
    return total if total.any() else None


def _energy(graph: Graph, op: Op, value: str) -> Array | None:
    if isinstance(op, WEIGHTED):
        if not graph.types[op.inputs[1]].is_float:
            return None
        if isinstance(op, MatMul) and graph.types[value].rank != 2:
            return None
        columns = to_columns(op, graph.constants[op.inputs[1]])
        return np.asarray(np.square(columns.astype(np.float64)).sum(axis=1))
    if isinstance(op, _SAME_CHANNELS):
        return reader_energy(graph, op.output)
    if isinstance(op, Add) and not any(graph.is_constant(name) for name in op.inputs):
        same = graph.types[op.output].shape == graph.types[value].shape
        return reader_energy(graph, op.output) if same else None
    if isinstance(op, Concat) and op.axis == 1:
        behind = reader_energy(graph, op.output)
        if behind is None:
            return None
        total = np.zeros(graph.types[value].shape[1])
        first = 0
        for name in op.inputs:
            count = graph.types[name].shape[1]
            if name == value:
                total += behind[first : first + count]
            first += count
        return total
    return None
