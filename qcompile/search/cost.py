"""What widths cost before anything is compiled: sums over layers that follow from their bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from qcompile.graph import Graph, Op
from qcompile.multiplications import multiplications
from qcompile.ops import WEIGHTED, Conv
from qcompile.plan import Plan
from qcompile.search.greedy import Part, Slot, Widths
from qcompile.search.joined import joined, origins


@dataclass(frozen=True, slots=True)
class Layer:
    """A weighted operator.

    Attributes:
        name: of the operator.
        weights: how many it has.
        macs: products it computes.
        held: input elements that hardware keeps while its window slides: whole rows.
        wbits: bits of its weights where no slot says other.
        sources: outputs (and what is only moved from them) that it reads.
        abits: bits of the widest input that has no slot; 0 if all have one.
    """

    name: str
    weights: int
    macs: int
    held: int
    wbits: int
    sources: tuple[str, ...]
    abits: int

    def bits(self, widths: Widths, slot: Slot | None = None, other: int = 0) -> tuple[int, int]:
        """Bits of weights and of the input: the widest of what is joined there.

        If `slot` is given, it has `other` bits.
        """
        own = self.name, Part.WEIGHTS
        wbits = other if slot == own else widths.get(own, self.wbits)
        abits = self.abits
        for name in self.sources:
            source = name, Part.OUTPUT
            abits = max(abits, other if slot == source else widths.get(source, 0))
        return wbits, abits


Term = Callable[[Layer, int, int], float]
"""term(layer, bits of its weights, bits of its input)"""


def weight_bits(layer: Layer, wbits: int, abits: int) -> float:
    """Bits of storage."""
    return layer.weights * wbits


def weight_bytes(layer: Layer, wbits: int, abits: int) -> float:
    """Bytes of storage."""
    return math.ceil(layer.weights * wbits / 8)


def bit_operations(layer: Layer, wbits: int, abits: int) -> float:
    """Products times the bits of both factors."""
    return layer.macs * wbits * abits


def ram_bits(layer: Layer, wbits: int, abits: int) -> float:
    """Weights and line buffers of an accelerator."""
    return layer.weights * wbits + layer.held * abits


@dataclass(frozen=True)
class LayerSum:
    """The sum of one term over all layers, as a `Cost`."""

    layers: Sequence[Layer]
    term: Term

    def total(self, widths: Widths) -> float:
        """Of the whole network."""
        return float(sum(self.term(layer, *layer.bits(widths)) for layer in self.layers))

    def change(self, widths: Widths, slot: Slot, bits: int) -> float:
        """Looks at the layers only that the slot concerns."""
        more = 0.0
        for layer in self._concerned.get(slot, ()):
            more += self.term(layer, *layer.bits(widths, slot, bits))
            more -= self.term(layer, *layer.bits(widths))
        return more

    @cached_property
    def _concerned(self) -> Mapping[Slot, Sequence[Layer]]:
        found: dict[Slot, list[Layer]] = {}
        for layer in self.layers:
            found.setdefault((layer.name, Part.WEIGHTS), []).append(layer)
            for name in layer.sources:
                found.setdefault((name, Part.OUTPUT), []).append(layer)
        return found


def layers_of(graph: Graph, plan: Plan, slots: frozenset[Slot]) -> tuple[Layer, ...]:
    """All weighted operators of a float graph.

    Args:
        graph: with the shapes.
        plan: what holds where there is no slot.
        slots: what a search may change.
    """
    return tuple(_layer(graph, plan, op, slots) for op in graph.ops if isinstance(op, WEIGHTED))


def _layer(graph: Graph, plan: Plan, op: Op, slots: frozenset[Slot]) -> Layer:
    free: list[str] = []
    fixed = [0]
    leaders = joined(graph)
    for value in origins(graph, op.inputs[0]):
        producer = graph.producers.get(value)
        if producer is None:
            fixed.append(plan.inputs[value].output.bits)
        elif (leaders[value], Part.OUTPUT) in slots:
            free.append(leaders[value])
        else:
            fixed.append(plan.layers[producer.name].output.bits)
    weights = graph.types[op.inputs[1]]
    chosen = plan.layers[op.name].weights
    assert chosen is not None
    return Layer(
        op.name,
        weights.size,
        multiplications(graph, op),
        _held(graph, op),
        chosen.bits,
        tuple(dict.fromkeys(free)),
        max(fixed),
    )


def _held(graph: Graph, op: Op) -> int:
    if not isinstance(op, Conv):
        return 0
    shape = graph.types[op.inputs[0]].shape
    rows = (graph.types[op.inputs[1]].shape[2] - 1) * op.dilations[0]
    return rows * math.prod(shape[1:2] + shape[3:])
