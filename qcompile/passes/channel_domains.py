"""Which values must share one factor for each channel, if their channels are to be rescaled.

    %y = relu(Conv(%x))   %p = MaxPool(%y)   %c = Concat(%p, %u)   %z = Conv(%c)

%y and %p form one domain, written by the first convolution and read, through the Concat, by the
first channels of the second one's weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx.utils

from qcompile.graph import Graph, Op
from qcompile.ops import (
    Activation,
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    GroupNorm,
    LinearResize,
    LocalAttention2d,
    MatMul,
    MaxPool,
    NearestResize,
    SumOp,
)

WRITERS: tuple[type[Op], ...] = (
    Conv,
    ConvTranspose,
    MatMul,
    Affine,
    GroupNorm,
    LocalAttention2d,
)
"""Operators whose parameters can scale each channel of their output."""
READERS: Mapping[type[Op], int] = {
    Conv: 0,
    ConvTranspose: 0,
    MatMul: 0,
    Affine: 0,
    LocalAttention2d: 2,
}
"""Operators whose parameters can scale each channel of an input, and which one that is: of
attention the values, of which it makes sums channel by channel."""
PASSING: tuple[type[Op], ...] = (MaxPool, NearestResize, LinearResize, AveragePool, Add)
"""Operators that commute with a positive factor for each channel."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An operator that reads a domain's channels as its input channels from `first` on."""

    op: Op
    first: int

    @property
    def value(self) -> str:
        """What it reads them from."""
        return self.op.inputs[READERS[type(self.op)]]


@dataclass(frozen=True)
class Domain:
    """Values that share their factors.

    Attributes:
        values: their names, in order of the graph.
        channels: how many.
        writers: the operators whose parameters can take the factors; empty if one cannot.
        readings: all operators that must undo them.
        neighbours: domains that lie beside this one in a Concat, by index.
    """

    values: tuple[str, ...]
    channels: int
    writers: tuple[Op, ...]
    readings: tuple[Reading, ...]
    neighbours: frozenset[int]

    @property
    def is_free(self) -> bool:
        return bool(self.writers) and bool(self.readings)


@dataclass(frozen=True)
class ChannelDomains:
    """All domains of a float graph. Operators named in `fixed` keep their parameters."""

    graph: Graph
    fixed: frozenset[str] = frozenset()

    @cached_property
    def _roots(self) -> networkx.utils.UnionFind[str]:
        roots: networkx.utils.UnionFind[str] = networkx.utils.UnionFind(self.graph.activations())
        for op in self.graph.ops:
            if self._passes(op):
                roots.union(op.output, *op.inputs)
        return roots

    @cached_property
    def _members(self) -> Mapping[str, tuple[str, ...]]:
        members: dict[str, list[str]] = {}
        for value in self.graph.activations():
            members.setdefault(self._roots[value], []).append(value)
        return {root: tuple(values) for root, values in members.items()}

    def _passes(self, op: Op) -> bool:
        graph = self.graph
        if not isinstance(op, PASSING) or any(graph.is_constant(name) for name in op.inputs):
            return False
        if isinstance(op, SumOp) and not _commutes(op.activation):
            return False
        shapes = {graph.types[name].shape for name in op.inputs}
        return len(shapes) == 1 and len(graph.types[op.output].shape) > 1

    def _joins(self, op: Op) -> bool:
        """A Concat of channels."""
        constant = any(self.graph.is_constant(name) for name in op.inputs)
        return isinstance(op, Concat) and op.axis == 1 and not constant

    @cached_property
    def _blocked(self) -> frozenset[str]:
        """Roots of domains whose factors must stay 1."""
        blocked = {self._roots[name] for name in (*self.graph.inputs, *self.graph.outputs)}
        joined: dict[str, Op] = {}
        for op in self.graph.ops:
            root = self._roots[op.output]
            if self._joins(op):
                if root in joined:
                    blocked.add(root)
                joined[root] = op
            elif not (self._passes(op) or self._writes(op)):
                blocked.add(root)
            for name in op.inputs:
                takes = self._passes(op) or self._joins(op) or self._reads(op, name)
                if not takes and not self.graph.is_constant(name):
                    blocked.add(self._roots[name])
        for root in joined:
            # Its factors are those of its parts: nobody else may have a say.
            producers = [self.graph.producers[value] for value in self._members[root]]
            if any(self._writes(op) for op in producers):
                blocked.add(root)
        for op in reversed(self.graph.ops):
            if self._joins(op) and self._roots[op.output] in blocked:
                blocked.update(self._roots[name] for name in op.inputs)
        return frozenset(blocked)

    def _writes(self, op: Op) -> bool:
        if not isinstance(op, WRITERS) or op.name in self.fixed:
            return False
        assert isinstance(op, SumOp)
        rank = self.graph.types[op.output].rank
        unclipped = op.activation.low in (-math.inf, 0.0) and op.activation.high == math.inf
        return unclipped and op.channel_axis(rank) == 1 and rank > 1

    def _reads(self, op: Op, value: str) -> bool:
        if type(op) not in READERS or op.name in self.fixed:
            return False
        if op.inputs[READERS[type(op)]] != value or op.inputs.count(value) > 1:
            return False
        return not isinstance(op, MatMul) or self.graph.types[value].rank == 2

    @cached_property
    def domains(self) -> tuple[Domain, ...]:
        """Every domain but those of Concat outputs, which follow from theirs."""
        joined = {self._roots[op.output] for op in self.graph.ops if self._joins(op)}
        roots = [root for root in self._members if root not in joined]
        index = {root: place for place, root in enumerate(roots)}
        found = []
        for root in roots:
            values = self._members[root]
            shape = self.graph.types[values[0]].shape
            writers: tuple[Op, ...] = ()
            if root not in self._blocked:
                producers = [self.graph.producers[value] for value in values]
                writers = tuple(op for op in producers if self._writes(op))
            beside = {index[other] for other in self._beside(root) if other in index}
            found.append(
                Domain(
                    values,
                    shape[1] if len(shape) > 1 else 1,
                    writers,
                    tuple(self._readings(root)) if writers else (),
                    frozenset(beside - {index[root]}),
                )
            )
        return tuple(found)

    def _readings(self, root: str, first: int = 0) -> list[Reading]:
        found = []
        for value in self._members[root]:
            for op in self.graph.consumers[value]:
                if self._reads(op, value):
                    found.append(Reading(op, first))
                elif self._joins(op):
                    for offset in self._offsets(op, value):
                        found += self._readings(self._roots[op.output], first + offset)
        return found

    def _offsets(self, op: Op, value: str) -> list[int]:
        """Where `value` lies in the output of a Concat."""
        offsets, place = [], 0
        for name in op.inputs:
            if name == value:
                offsets.append(place)
            place += self.graph.types[name].shape[1]
        return offsets

    def _beside(self, root: str) -> set[str]:
        """Roots of all domains that share a Concat with this one."""
        found: set[str] = set()
        for value in self._members[root]:
            for op in self.graph.consumers[value]:
                if self._joins(op):
                    found.update(self._roots[name] for name in op.inputs)
                    found |= self._beside(self._roots[op.output])
        return found

    def factors_of(self, value: str, factors: Mapping[int, list[float]]) -> list[float] | None:
        """The factors of a value's channels, given those of free domains; None if all are 1."""
        root = self._roots[value]
        for place, domain in enumerate(self.domains):
            if domain.values[0] == self._members[root][0]:
                return factors.get(place)
        join = next(
            (
                self.graph.producers[name]
                for name in self._members[root]
                if name in self.graph.producers and self._joins(self.graph.producers[name])
            ),
            None,
        )
        if join is None:
            return None
        parts: list[float] = []
        changed = False
        for name in join.inputs:
            part = self.factors_of(name, factors)
            changed |= part is not None
            parts += part if part is not None else [1.0] * self.graph.types[name].shape[1]
        return parts if changed else None


def _commutes(activation: Activation) -> bool:
    """activation(t * z) = t * activation(z) for every positive t."""
    plain = activation.gain == (1.0,) and activation.shift == (0.0,)
    return plain and activation.low in (-math.inf, 0.0) and activation.high == math.inf
