"""Whose sums a tensor enters, straight or through operators without weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, WEIGHTED, Add, Concat, MaxPool, NearestResize, Pad

ADDITIONS = 1
"""A residual stream lives on through one addition after another, and grows; what an element of it
costs is decided where it is read first."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A weighted operator that reads a tensor, or the graph's end.

    Attributes:
        op: the operator; None where the graph returns what is made of the tensor.
        channels: where the tensor's channels lie among those of the operator's input; None where
            an operator in between does not keep them.
    """

    op: Op | None
    channels: slice | None


def readers(graph: Graph, value: str) -> list[Reader]:
    """All readers of a value of a float graph, in order.

    Whatever lies in between is taken as passing errors on as they are: what is only moved, what is
    interpolated, added to, or goes through a function.
    """
    shape = graph.types[value].shape
    channels = slice(0, shape[1] if len(shape) > 1 else 1)
    found = list(_readers(graph, value, channels, ADDITIONS))
    return found or list(_readers(graph, value, channels, len(graph.ops)))


def _readers(graph: Graph, value: str, channels: slice | None, additions: int) -> Iterator[Reader]:
    if value in graph.outputs:
        yield Reader(None, channels)
    for op in graph.consumers[value]:
        if isinstance(op, WEIGHTED):
            if op.inputs[0] == value:
                yield Reader(op, channels)
        elif not isinstance(op, Add):
            yield from _readers(graph, op.output, _moved(graph, op, value, channels), additions)
        elif additions:
            yield from _readers(graph, op.output, channels, additions - 1)


def _moved(graph: Graph, op: Op, value: str, channels: slice | None) -> slice | None:
    """Where `op` puts the channels of its input `value`."""
    if channels is None:
        return None
    if isinstance(op, Concat) and op.axis == 1:
        before = op.inputs[: op.inputs.index(value)]
        offset = sum(graph.types[name].shape[1] for name in before)
        return slice(channels.start + offset, channels.stop + offset)
    if isinstance(op, MOVEMENT) and not isinstance(op, MaxPool | NearestResize):
        return channels if isinstance(op, Pad) and _keeps_channels(op) else None
    shapes = graph.types[value].shape, graph.types[op.output].shape
    return channels if shapes[0][1:2] == shapes[1][1:2] else None


def _keeps_channels(op: Pad) -> bool:
    return op.begins[1:2] == op.ends[1:2] == (0,)
