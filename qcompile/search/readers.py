"""Whose sums a tensor enters, straight or through operators that only move its elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, WEIGHTED, Concat, MaxPool, NearestResize, Pad


@dataclass(frozen=True, slots=True)
class Reader:
    """An operator that computes with a tensor, or the graph's end.

    Attributes:
        op: the operator; None where the graph returns the tensor.
        channels: where the tensor's channels lie among those of the operator's input; None where
            an operator in between does not keep them.
    """

    op: Op | None
    channels: slice | None


def readers(graph: Graph, value: str) -> Iterator[Reader]:
    """All readers of a value of a float graph, in order."""
    shape = graph.types[value].shape
    yield from _readers(graph, value, slice(0, shape[1] if len(shape) > 1 else 1))


def _readers(graph: Graph, value: str, channels: slice | None) -> Iterator[Reader]:
    if value in graph.outputs:
        yield Reader(None, channels)
    for op in graph.consumers[value]:
        if isinstance(op, MOVEMENT):
            yield from _readers(graph, op.output, _moved(graph, op, value, channels))
        elif not isinstance(op, WEIGHTED) or op.inputs[0] == value:
            yield Reader(op, channels)


def _moved(graph: Graph, op: Op, value: str, channels: slice | None) -> slice | None:
    """Where `op` puts the channels of its input `value`."""
    if channels is None or isinstance(op, MaxPool | NearestResize):
        return channels
    if isinstance(op, Pad) and op.begins[1:2] == op.ends[1:2] == (0,):
        return channels
    if isinstance(op, Concat) and op.axis == 1:
        before = op.inputs[: op.inputs.index(value)]
        offset = sum(graph.types[name].shape[1] for name in before)
        return slice(channels.start + offset, channels.stop + offset)
    return None
