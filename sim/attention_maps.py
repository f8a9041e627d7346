"""What the attention of a network looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    MOVEMENT,
    BatchMatMul,
    FakeQuantize,
    HardSigmoid,
    LinearResize,
    LocalAttention2d,
    Lookup,
    Mul,
    Rescale,
    Sigmoid,
    Softmax,
)
from qcompile.sim.executor import Executor
from qcompile.sim.local_attention2d import attention_map
from qcompile.types import Array, Shape

Gate = Sigmoid | HardSigmoid | Lookup
"""Weights of pixels from 0 to 1; in the integer stage they come from a table."""

Attention = LocalAttention2d | Softmax | Gate

PASSED: tuple[type[Op], ...] = (*MOVEMENT, Rescale, FakeQuantize)
"""What may lie between a softmax and the product that its weights enter."""

PASSED_BY_GATES: tuple[type[Op], ...] = (*PASSED, LinearResize)
"""What may lie between a gate and the feature map that it is multiplied with."""


def attention_layers(graph: Graph) -> tuple[Attention, ...]:
    """The operators whose weights are attention, in order:

    * every `LocalAttention2d`;
    * every `Softmax` whose result enters a product with another tensor (`BatchMatMul`), directly or
      by operators that only move or rescale it;
    * every gate over pixels: a `Sigmoid` or `HardSigmoid` of shape [1, C, H, W] that another tensor
      of as many pixels is multiplied with (`Mul`), directly or resized. Gates of one pixel (squeeze
      and excitation) weigh channels, not pixels, and are none.

    Those in float islands have no integer weights and are left out of a lowered graph.
    """
    return tuple(
        op
        for op in graph.ops
        if isinstance(op, Attention)
        and not (graph.stage is Stage.INTEGER and graph.output_type(op).is_float)
        and _attends(graph, op)
    )


def _attends(graph: Graph, op: Attention) -> bool:
    if isinstance(op, LocalAttention2d):
        return True
    if isinstance(op, Softmax):
        return any(True for _ in paths(graph, op))
    kind = op.function if isinstance(op, Lookup) else op.kind
    return kind in (Sigmoid.__name__, HardSigmoid.__name__) and _weighs_pixels(graph, op)


def _weighs_pixels(graph: Graph, op: Gate) -> bool:
    """A product of the gate's result and of another computed tensor, both of several pixels."""
    if not _has_pixels(graph.types[op.output].shape):
        return False
    for reader, _, values in _readers(graph, op, PASSED_BY_GATES):
        if not isinstance(reader, Mul) or not _has_pixels(graph.types[values[-1]].shape):
            continue
        others = [value for value in reader.inputs if value != values[-1]]
        pixels = graph.output_type(reader).shape[2:]
        if any(
            not graph.is_constant(value) and graph.types[value].shape[2:] == pixels
            for value in others
        ):
            return True
    return False


def _has_pixels(shape: Shape) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


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
    for reader, moves, values in _readers(graph, op, PASSED):
        if isinstance(reader, BatchMatMul):
            yield Path(reader, moves, values)


def _readers(
    graph: Graph, op: Op, passed: tuple[type[Op], ...]
) -> Iterator[tuple[Op, tuple[Op, ...], tuple[str, ...]]]:
    """What reads the result of `op`, the operators of the kinds `passed` in between, and the
    result's name after each of these."""
    waiting: list[tuple[tuple[Op, ...], tuple[str, ...]]] = [((), op.outputs)]
    while waiting:
        moves, values = waiting.pop()
        for reader in graph.consumers.get(values[-1], ()):
            if isinstance(reader, passed):
                waiting.append(((*moves, reader), (*values, reader.output)))
            else:
                yield reader, moves, values


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


def values_of(graph: Graph, op: Attention) -> tuple[str, ...]:
    """The activations that `map_of` needs."""
    if not isinstance(op, LocalAttention2d):
        return op.outputs
    return tuple(value for value in op.inputs if not graph.is_constant(value))


def map_of(graph: Graph, op: Attention, values: Mapping[str, Array]) -> Array:
    """The integer weights of one layer.

    Args:
        graph: of the integer stage.
        op: one of its layers.
        values: those of `values_of`, by name.

    Returns:
        Of a window: uint16 [heads, positions of the window, rows, columns]; positions count along
        the window's rows. Of a softmax: its codes, the axis of the softmax last ([.., queries,
        keys] for attention as usual). The weights of one query are `levels_of` together, but for
        their rounding. Of a gate: its codes [channels, rows, columns].
    """
    if isinstance(op, Softmax):
        return np.moveaxis(values[op.output], op.axis, -1)
    if isinstance(op, Gate):
        codes: Array = values[op.output][0]
        return codes
    inputs = [
        graph.constants[value] if graph.is_constant(value) else values[value] for value in op.inputs
    ]
    return attention_map(op, inputs, graph.output_type(op))


def levels_of(graph: Graph, op: Attention) -> int | float:
    """The code that stands for a weight of 1: a whole number, but for gates, whose scale fits the
    weights that calibration saw."""
    if isinstance(op, Softmax):
        return op.levels
    if isinstance(op, Gate):
        grid = graph.output_type(op).quantization
        assert grid is not None
        return float(1 / grid.exact())
    assert op.widths is not None
    return op.widths.levels
