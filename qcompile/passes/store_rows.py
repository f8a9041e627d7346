"""Rows that wait long for their reader: stored densely, or computed again.

Before: conv -> x, read by a pool at once and by a concatenation much later

    packed:       x -> PackRows -> x'   x' -> UnpackRows -> x"   the concatenation reads x"
    recomputed:   input -> conv again -> x"                      the concatenation reads x"

Of x itself only the few rows remain that the pool needs. Nothing of this exists in the network; the
added operators belong to the C program alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Graph, Op
from qcompile.multiplications import multiplications
from qcompile.types import IntType, Shape, TensorType

BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRows(Op):
    """Rows of codes of `bits` bits, without gaps, each from a new byte on: [1, bytes, H, 1]."""

    bits: int

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) != 4:
            raise ShapeError(f"{self.label()}: {list(shapes[0])} is no image")
        _, channels, height, width = shapes[0]
        return (1, -(-channels * width * self.bits // BYTE), height, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackRows(Op):
    """The rows before `PackRows`, of `channels` channels."""

    bits: int
    channels: int
    width: int

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return (1, self.channels, shapes[0][2], self.width)


@dataclass(frozen=True)
class Extended:
    """A graph with added operators.

    Attributes:
        graph: all operators.
        origins: added operator -> the operator of the network that its result comes from.
    """

    graph: Graph
    origins: Mapping[str, str]

    @property
    def added(self) -> frozenset[str]:
        """The values that the network does not have."""
        return frozenset(op.output for op in self.graph.ops if op.name in self.origins)

    @property
    def multiplications(self) -> int:
        """Those that are made a second time."""
        added = (op for op in self.graph.ops if op.name in self.origins)
        return sum(multiplications(self.graph, op) for op in added)


def cone(graph: Graph, value: str) -> tuple[Op, ...]:
    """The operators that compute `value` from the graph's inputs."""
    wanted = {value}
    found = []
    for op in reversed(graph.ops):
        if op.output in wanted:
            found.append(op)
            wanted |= {item for item in op.inputs if item in graph.producers}
    return tuple(reversed(found))


def with_recomputed(extended: Extended, ops: Sequence[Op], readers: frozenset[str]) -> Extended:
    """`readers` get the output of the last of `ops` from copies of `ops`, which run before them."""
    graph = extended.graph
    names = _Names(graph)
    again = {op.output: names.fresh(f"{op.output} again") for op in ops}
    copies = tuple(
        dataclasses.replace(
            op,
            name=names.fresh(f"{op.name} again"),
            inputs=tuple(again.get(value, value) for value in op.inputs),
            outputs=(again[op.output],),
        )
        for op in ops
    )
    types = {new: graph.types[old] for old, new in again.items()}
    known = extended.origins
    origins = {copy.name: known.get(op.name, op.name) for copy, op in zip(copies, ops, strict=True)}
    value = ops[-1].output
    result = _with_reader(graph, value, again[value], readers, copies, types)
    return Extended(result, {**known, **origins})


def with_packed(extended: Extended, value: str, readers: frozenset[str]) -> Extended | None:
    """Stores `value` densely for `readers`.

    Returns:
        None if its bytes have no unused bits, it has one row, or it is the caller's.
    """
    graph = extended.graph
    kind = graph.types[value]
    if kind.rank != 4 or kind.shape[2] == 1 or value in graph.outputs:
        return None
    if kind.is_float or kind.element.storage.itemsize > 1 or kind.integer.bits >= BYTE:
        return None
    names = _Names(graph)
    packed, unpacked = names.fresh(f"{value} packed"), names.fresh(f"{value} unpacked")
    pack = PackRows(
        name=names.fresh(f"{value} pack"),
        inputs=(value,),
        outputs=(packed,),
        bits=kind.integer.bits,
    )
    unpack = UnpackRows(
        name=names.fresh(f"{value} unpack"),
        inputs=(packed,),
        outputs=(unpacked,),
        bits=kind.integer.bits,
        channels=kind.shape[1],
        width=kind.shape[3],
    )
    stored = TensorType(pack.infer_shape([kind.shape]), IntType(BYTE, signed=False))
    types = {packed: stored, unpacked: kind}
    graph = _with_reader(graph, value, unpacked, readers, (unpack,), types)
    at = next(index for index, op in enumerate(graph.ops) if op.output == value) + 1
    graph = dataclasses.replace(graph, ops=(*graph.ops[:at], pack, *graph.ops[at:]))
    origin = graph.producers[value].name
    return Extended(graph, {**extended.origins, pack.name: origin, unpack.name: origin})


class _Names:
    """Names that neither a value nor an operator has."""

    def __init__(self, graph: Graph) -> None:
        self._taken = {*graph.types, *(op.name for op in graph.ops)}

    def fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base} {count}"
        self._taken.add(name)
        return name


def _with_reader(
    graph: Graph,
    old: str,
    new: str,
    readers: frozenset[str],
    before: Sequence[Op],
    types: Mapping[str, TensorType],
) -> Graph:
    """`readers` read `new` instead of `old`; the operators `before` run before the first one."""
    first = next(index for index, op in enumerate(graph.ops) if op.name in readers)
    ops = [
        dataclasses.replace(op, inputs=tuple(new if value == old else value for value in op.inputs))
        if op.name in readers
        else op
        for op in graph.ops
    ]
    return dataclasses.replace(
        graph, ops=(*ops[:first], *before, *ops[first:]), types={**graph.types, **types}
    )
