"""The graph: operators over named values, frozen; edited through `Rewriter`."""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx

from qcompile.errors import GraphError
from qcompile.types import Array, Shape, TensorType


class Stage(enum.Enum):
    """How far a graph has come; each stage has rules in `verifier.py`."""

    FLOAT = "float"
    QUANTIZED = "quantized"
    INTEGER = "integer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """An operator: names of the values it reads and writes, and its own typed fields.

    `name` is unique in the graph and is the ONNX node's name (or says which node it came from), so
    that every message about an operator leads back to the user's model.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def output(self) -> str:
        return self.outputs[0]

    @property
    def kind(self) -> str:
        """The operator's name for people: messages, listings, reports."""
        return type(self).__name__

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of the output.

        Raises:
            ShapeError: the input shapes do not fit this operator.
        """
        raise NotImplementedError(self.kind)

    def label(self) -> str:
        return f"{self.kind} '{self.name}'"


@dataclass(frozen=True)
class Graph:
    """Operators in topological order over named values. Constants are values with data."""

    name: str
    stage: Stage
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array] = field(repr=False)

    @cached_property
    def producers(self) -> Mapping[str, Op]:
        """Value name -> the operator that writes it."""
        return {value: op for op in self.ops for value in op.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Op, ...]]:
        """Value name -> the operators that read it, in order, each once."""
        found: dict[str, list[Op]] = {value: [] for value in self.types}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op)
        return {value: tuple(ops) for value, ops in found.items()}

    @cached_property
    def by_name(self) -> Mapping[str, Op]:
        return {op.name: op for op in self.ops}

    def input_types(self, op: Op) -> tuple[TensorType, ...]:
        return tuple(self.types[value] for value in op.inputs)

    def output_type(self, op: Op) -> TensorType:
        return self.types[op.output]

    def is_constant(self, value: str) -> bool:
        return value in self.constants

    def only_consumer(self, value: str) -> Op | None:
        """The single operator that reads `value`, None if several do or the graph returns it."""
        readers = self.consumers[value]
        return readers[0] if len(readers) == 1 and value not in self.outputs else None

    def dependence(self) -> nx.DiGraph[str]:
        """Operators (by name) as nodes, values as edges."""
        result: nx.DiGraph[str] = nx.DiGraph()
        result.add_nodes_from(op.name for op in self.ops)
        for op in self.ops:
            for value in op.inputs:
                if value in self.producers:
                    result.add_edge(self.producers[value].name, op.name, value=value)
        return result

    def activations(self) -> tuple[str, ...]:
        """Every value that is not a constant: inputs first, then in order of production."""
        return self.inputs + tuple(value for op in self.ops for value in op.outputs)


def sorted_ops(ops: Sequence[Op], graph_name: str) -> tuple[Op, ...]:
    """`ops` in topological order, keeping the given order wherever dependences allow.

    Raises:
        GraphError: the operators form a cycle or two of them write one value.
    """
    producer: dict[str, int] = {}
    for index, op in enumerate(ops):
        for value in op.outputs:
            if value in producer:
                raise GraphError(
                    f"{op.label()}: value '{value}' is already written by "
                    f"{ops[producer[value]].label()}; each value needs one producer"
                )
            producer[value] = index
    waiting = [0] * len(ops)
    readers: list[list[int]] = [[] for _ in ops]
    for index, op in enumerate(ops):
        for source in {producer[value] for value in op.inputs if value in producer}:
            waiting[index] += 1
            readers[source].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order: list[Op] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(ops[index])
        for reader in readers[index]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(ops):
        stuck = next(op for op, count in zip(ops, waiting, strict=True) if count > 0)
        raise GraphError(
            f"{stuck.label()}: the operators of '{graph_name}' form a cycle; "
            f"a network must be acyclic"
        )
    return tuple(order)


class Rewriter:
    """Collects edits of one graph and builds the next one.

    A pass walks the old graph and calls `replace`, `remove`, `redirect` and `add_*`; `finish` puts
    the operators in order, drops what nobody reads and infers the missing types.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._ops: dict[str, list[Op]] = {op.name: [op] for op in graph.ops}
        self._front: list[Op] = []
        self._types: dict[str, TensorType] = dict(graph.types)
        self._constants: dict[str, Array] = dict(graph.constants)
        self._redirects: dict[str, str] = {}
        self._inputs = graph.inputs
        self._outputs = graph.outputs
        self._names = set(graph.types) | {op.name for op in graph.ops}

    def fresh(self, base: str) -> str:
        """A name that no value or operator has yet, made from `base`."""
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}.{count}"
        self._names.add(name)
        return name

    def replace(self, op: Op, *new: Op) -> None:
        """Puts `new` where `op` stands (its last outputs usually keep the old names)."""
        self._ops[op.name] = list(new)

    def remove(self, op: Op) -> None:
        self._ops[op.name] = []

    def insert_front(self, op: Op) -> None:
        """Adds an operator; the topological order decides its place."""
        self._front.append(op)

    def redirect(self, old: str, new: str) -> None:
        """Every reader of value `old`, graph outputs included, reads `new` instead."""
        self._redirects[old] = new

    def add_constant(self, base: str, data: Array, kind: TensorType) -> str:
        name = self.fresh(base)
        self._constants[name] = data
        self._types[name] = kind
        return name

    def set_constant(self, name: str, data: Array, kind: TensorType) -> None:
        self._constants[name] = data
        self._types[name] = kind

    def add_value(self, base: str, kind: TensorType | None = None) -> str:
        """Name for a new computed value; without a type its shape is inferred."""
        name = self.fresh(base)
        if kind is not None:
            self._types[name] = kind
        return name

    def set_type(self, value: str, kind: TensorType) -> None:
        self._types[value] = kind

    def forget_type(self, value: str) -> None:
        """The shape changes: infer it anew."""
        self._types.pop(value, None)

    def set_outputs(self, outputs: tuple[str, ...]) -> None:
        self._outputs = outputs

    def finish(self, stage: Stage | None = None) -> Graph:
        ops = self._front + [op for replaced in self._ops.values() for op in replaced]
        if self._redirects:
            ops = [
                dataclasses.replace(op, inputs=tuple(self._final(value) for value in op.inputs))
                for op in ops
            ]
        outputs = tuple(self._final(value) for value in self._outputs)
        ops = list(live_ops(sorted_ops(ops, self.graph.name), outputs))
        used = {value for op in ops for value in (*op.inputs, *op.outputs)}
        used |= set(outputs) | set(self._inputs)
        constants = {name: data for name, data in self._constants.items() if name in used}
        types = {value: kind for value, kind in self._types.items() if value in used}
        infer_missing_types(ops, types)
        return Graph(
            self.graph.name,
            stage or self.graph.stage,
            self._inputs,
            outputs,
            tuple(ops),
            types,
            constants,
        )

    def _final(self, value: str) -> str:
        seen = {value}
        while value in self._redirects:
            value = self._redirects[value]
            if value in seen:
                raise GraphError(f"value '{value}' is redirected in a circle")
            seen.add(value)
        return value


def live_ops(ops: Sequence[Op], outputs: Iterable[str]) -> tuple[Op, ...]:
    """The operators (given in topological order) that some output depends on."""
    needed = set(outputs)
    live: list[Op] = []
    for op in reversed(ops):
        if needed.intersection(op.outputs):
            live.append(op)
            needed.update(op.inputs)
    return tuple(reversed(live))


def infer_missing_types(ops: Sequence[Op], types: dict[str, TensorType]) -> None:
    """Fills `types` for values that have none: the inferred shape, float elements."""
    for op in ops:
        if op.output not in types:
            for value in op.inputs:
                if value not in types:
                    raise GraphError(f"{op.label()}: reads value '{value}' that nothing writes")
            shape = op.infer_shape([types[value].shape for value in op.inputs])
            types[op.output] = TensorType(shape)
