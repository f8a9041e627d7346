"""What the attention of a network looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import MOVEMENT, BatchMatMul, FakeQuantize, LocalAttention2d, Rescale, Softmax
from qcompile.sim.executor import Executor
from qcompile.sim.local_attention2d import attention_map
from qcompile.types import Array

PASSED: tuple[type[Op], ...] = (*MOVEMENT, Rescale, FakeQuantize)
"""What may lie between a softmax and the product that its weights enter."""


def attention_layers(graph: Graph) -> tuple[LocalAttention2d | Softmax, ...]:
    """The operators whose weights are attention, in order: every `LocalAttention2d`, and every
    `Softmax` whose result enters a product with another tensor (`BatchMatMul`), directly or by
    operators that only move or rescale it. Those in float islands have no integer weights and are
    left out of a lowered graph."""
    return tuple(
        op
        for op in graph.ops
        if isinstance(op, LocalAttention2d | Softmax)
        and not (graph.stage is Stage.INTEGER and graph.output_type(op).is_float)
        and (isinstance(op, LocalAttention2d) or any(True for _ in paths(graph, op)))
    )


@dataclass(frozen=True)
class Path:
    """How the weights of a softmax get into a product.

    Attributes:
        product: the one that they enter.
        moves: the operators in between.
        values: the weights, and what they are called after each of these.
    """

    product: BatchMatMul
    moves: tuple[Op, ...]
    values: tuple[str, ...]


def paths(graph: Graph, op: Softmax) -> Iterator[Path]:
    """The products that the weights of `op` enter."""
    waiting: list[tuple[tuple[Op, ...], tuple[str, ...]]] = [((), op.outputs)]
    while waiting:
        moves, values = waiting.pop()
        for reader in graph.consumers.get(values[-1], ()):
            if isinstance(reader, BatchMatMul):
                yield Path(reader, moves, values)
            elif isinstance(reader, PASSED):
                waiting.append(((*moves, reader), (*values, reader.output)))


def attention_maps(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The integer weights of every layer of `attention_layers`, by operator name, for one input.

    Args:
        graph: of the integer stage.
        feeds: as `Executor.run` takes them.

    Returns:
        As `map_of` describes them.

    Raises:
        GraphError: the graph is of another stage.
        DataError: the feeds do not fit.
    """
    if graph.stage is not Stage.INTEGER:
        raise GraphError(f"graph '{graph.name}' is not lowered; its attention is not in integers")
    layers = attention_layers(graph)
    taps = {value for op in layers for value in values_of(graph, op)}
    values = Executor(graph).run(feeds, taps=taps)
    return {op.name: map_of(graph, op, values) for op in layers}


def values_of(graph: Graph, op: LocalAttention2d | Softmax) -> tuple[str, ...]:
    """The activations that `map_of` needs."""
    if isinstance(op, Softmax):
        return op.outputs
    return tuple(value for value in op.inputs if not graph.is_constant(value))


def map_of(graph: Graph, op: LocalAttention2d | Softmax, values: Mapping[str, Array]) -> Array:
    """The integer weights of one layer.

    Args:
        graph: of the integer stage.
        op: one of its layers.
        values: those of `values_of`, by name.

    Returns:
        Of a window: uint16 [heads, positions of the window, rows, columns]; positions count along
        the window's rows. Of a softmax: its codes, the axis of the softmax last ([.., queries,
        keys] for attention as usual). The weights of one query are `levels_of` together, but for
        their rounding.
    """
    if isinstance(op, Softmax):
        return np.moveaxis(values[op.output], op.axis, -1)
    inputs = [
        graph.constants[value] if graph.is_constant(value) else values[value] for value in op.inputs
    ]
    return attention_map(op, inputs, graph.output_type(op))


def levels_of(op: LocalAttention2d | Softmax) -> int:
    """The code that stands for a weight of 1."""
    if isinstance(op, Softmax):
        return op.levels
    assert op.widths is not None
    return op.widths.levels
