"""Which channels of which values must be kept or removed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx.utils

from qcompile.graph import Graph, Op
from qcompile.ops import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LinearResize,
    LocalAttention2d,
    MatMul,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    Pointwise,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)

Channel = tuple[str, int]
"""A value and an index of its axis 1."""

_FROZEN: Channel = ("", 0)
"""Everything united with this one must stay. No value has an empty name."""


@dataclass(frozen=True)
class ChannelClasses:
    """The partition of all channels of a graph; `removable` leaves out what must stay."""

    removable: tuple[frozenset[Channel], ...]


def channel_classes(graph: Graph, keep: Iterable[str] = ()) -> ChannelClasses:
    """Partitions the channels (axis 1 of every computed value of rank 2 or more).

    Two channels are in one class when removing one means removing the other: both terms of a sum,
    input and output of a pool, a depthwise filter and its input. Concat and Slice map offsets.
    Channels that reach a graph output, or an operator that mixes channels with other axes, must
    stay.

    Args:
        graph: a float graph.
        keep: values whose channels must all stay.
    """
    union = _Union(graph)
    for name in (*graph.inputs, *graph.outputs, *keep):
        union.freeze(name)
    for op in graph.ops:
        _unite(graph, union, op)
    return ChannelClasses(union.removable())


class _Union:
    """Union-find over channels, with one class for everything that must stay."""

    def __init__(self, graph: Graph) -> None:
        self._counts: Mapping[str, int] = {
            name: graph.types[name].shape[1]
            for name in graph.activations()
            if graph.types[name].rank > 1
        }
        channels = [(name, index) for name, count in self._counts.items() for index in range(count)]
        self._sets: networkx.utils.UnionFind[Channel] = networkx.utils.UnionFind(
            [_FROZEN, *channels]
        )

    def count(self, name: str) -> int:
        """Channels of a value; 0 for constants and values without a channel axis."""
        return self._counts.get(name, 0)

    def unite(self, *channels: Channel) -> None:
        self._sets.union(*channels)

    def tie(self, a: str, b: str) -> None:
        """Channel by channel."""
        for index in range(self.count(a)):
            self.unite((a, index), (b, index))

    def freeze(self, name: str) -> None:
        for index in range(self.count(name)):
            self.unite((name, index), _FROZEN)

    def removable(self) -> tuple[frozenset[Channel], ...]:
        frozen = self._sets[_FROZEN]
        classes = [
            frozenset(members)
            for members in self._sets.to_sets()
            if self._sets[next(iter(members))] != frozen
        ]
        return tuple(sorted(classes, key=min))


def _unite(graph: Graph, union: _Union, op: Op) -> None:
    x, y = op.inputs[0], op.output
    match op:
        case Conv() | ConvTranspose():
            _unite_groups(union, x, y, op.groups)
        case MatMul():
            if graph.types[x].rank > 2:
                union.tie(x, y)
        case GroupNorm():
            union.tie(x, y)
            size = union.count(x) // op.groups
            for index in range(union.count(x)):
                union.unite((x, index), (x, index - index % size))
        case LocalAttention2d():
            _unite_heads(graph, union, op)
        case Affine() | Rescale() | Pointwise() | MaxPool() | AveragePool():
            union.tie(x, y)
        case NearestResize() | LinearResize():
            union.tie(x, y)
        case Concat():
            _unite_concat(union, op)
        case Add() | Mul() | Div():
            _unite_broadcast(graph, union, op)
        case Reshape():
            _unite_reshape(graph, union, op)
        case Slice() if graph.types[x].rank > 1 and op.steps[1] == 1:
            for index in range(union.count(y)):
                union.unite((x, op.starts[1] + index), (y, index))
        case _ if keeps_channels(graph, op):
            union.tie(x, y)
        case _:
            for name in (*op.inputs, y):
                union.freeze(name)


def keeps_channels(graph: Graph, op: Op) -> bool:
    """Channel c of the output depends on channel c of the input alone, in order."""
    match op:
        case Pad():
            return op.begins[1] == op.ends[1] == 0
        case Softmax():
            return op.axis != 1 and len(op.inputs) == 1
        case ReduceMean():
            return min(op.axes) > 1
        case Transpose():
            return op.permutation[:2] == (0, 1)
    return False


def _unite_groups(union: _Union, x: str, y: str, groups: int) -> None:
    """With several groups, a group's inputs and outputs go together."""
    if groups == 1:
        return
    per_input, per_output = union.count(x) // groups, union.count(y) // groups
    for group in range(groups):
        union.unite(
            *((x, group * per_input + index) for index in range(per_input)),
            *((y, group * per_output + index) for index in range(per_output)),
        )


def _unite_heads(graph: Graph, union: _Union, op: LocalAttention2d) -> None:
    """Queries go with their keys and values with the output, from every head as many; or all of a
    head at once (`loses_heads`)."""
    q, k, v = op.inputs[:3]
    if any(graph.is_constant(name) for name in (q, k, v)):
        for name in (q, k, v, op.output):
            union.freeze(name)
        return
    whole = loses_heads(graph, op)
    for sides in ((q, k), (v, op.output)):
        count = union.count(sides[0])
        each = count // op.heads
        for index in range(count):
            alike = index - index % each if whole else index % each
            union.unite(*((side, index) for side in sides), (sides[0], alike))
    if whole:
        for head in range(op.heads):
            union.unite(*((side, union.count(side) // op.heads * head) for side in (q, v)))


def loses_heads(graph: Graph, op: LocalAttention2d) -> bool:
    """Heads go as a whole: those of several heads that have but one channel of keys or values."""
    counts = [graph.types[name].shape[1] for name in (op.inputs[0], op.inputs[2])]
    return op.heads > 1 and op.heads in counts


def _unite_concat(union: _Union, op: Concat) -> None:
    offset = 0
    for name in op.inputs:
        if not union.count(name):
            # A constant part (or a rank below 2): its neighbours keep their places.
            for other in (*op.inputs, op.output):
                union.freeze(other)
            return
        for index in range(union.count(name)):
            union.unite((name, index), (op.output, offset + index))
        offset += union.count(name) if op.axis == 1 else 0


def _unite_broadcast(graph: Graph, union: _Union, op: Op) -> None:
    rank, channels = graph.types[op.output].rank, union.count(op.output)
    for name in op.inputs:
        if graph.is_constant(name):
            continue
        if graph.types[name].rank != rank:
            union.freeze(name)
            union.freeze(op.output)
        elif union.count(name) == channels:
            union.tie(name, op.output)
        else:
            # One channel for all: it has no place of its own in the output.
            union.freeze(name)


def _unite_reshape(graph: Graph, union: _Union, op: Reshape) -> None:
    x, y = op.inputs[0], op.output
    blocks = reshape_blocks(graph, op)
    if blocks == 0:
        union.freeze(x)
        union.freeze(y)
    for index in range(blocks * union.count(x)):
        union.unite((x, index // blocks), (y, index))


def reshape_blocks(graph: Graph, op: Reshape) -> int:
    """How many channels of the output each channel of the input becomes; 0: they are mixed."""
    before, after = graph.types[op.inputs[0]].shape, op.shape
    if len(before) < 2 or len(after) < 2 or before[0] != 1 or after[0] != 1:
        return 0
    return after[1] // before[1] if after[1] % before[1] == 0 else 0
