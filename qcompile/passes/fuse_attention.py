"""Which products of two computed matrices are attention: their weights need not be in memory.

Before: q, k -> BatchMatMul -> Softmax -> w, v -> BatchMatMul -> y
After:  q, k, v -> attention -> y                                   a few rows of w at a time

Scores and weights are the largest tensors of a transformer: the square of its tokens for each head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.ops import BatchMatMul, Softmax


@dataclass(frozen=True, slots=True)
class Attention:
    """Three operators that one step computes.

    Attributes:
        scores: queries times keys, [.., queries, keys].
        softmax: over the keys, with a mask or without.
        product: weights times values, [.., queries, values].
    """

    scores: BatchMatMul
    softmax: Softmax
    product: BatchMatMul

    @property
    def inside(self) -> tuple[Op, ...]:
        """The operators whose results nothing else reads."""
        return (self.scores, self.softmax)


@dataclass(frozen=True)
class FuseAttention:
    """Finds each `BatchMatMul` of integers, `Softmax` over its rows, `BatchMatMul` of the weights,
    where nothing else reads what is in between."""

    def run(self, graph: Graph) -> Mapping[str, Attention]:
        """Name of the product of weights and values -> what is computed with it."""
        found = {}
        for op in graph.ops:
            item = _attention(graph, op) if isinstance(op, BatchMatMul) else None
            if item is not None:
                found[op.name] = item
        return found


def _attention(graph: Graph, product: BatchMatMul) -> Attention | None:
    """What `product` takes its weights from, if it is attention."""
    softmax = graph.producers.get(product.inputs[0])
    if not isinstance(softmax, Softmax) or not _alone(graph, softmax):
        return None
    scores = graph.producers.get(softmax.inputs[0])
    if not isinstance(scores, BatchMatMul) or not _alone(graph, scores):
        return None
    weights, out = graph.types[softmax.output], graph.output_type(product)
    floats = any(graph.output_type(op).is_float for op in (scores, softmax, product))
    # Quotients of the fused step have 32 bits. Values of a larger batch would have the weights
    # computed several times.
    if (
        floats
        or softmax.table[0] * (softmax.levels + weights.shape[-1]) >= 1 << 32
        or softmax.axis != weights.rank - 1
        or weights.shape[:-2] != out.shape[:-2]
        or product.inputs[1] == softmax.output
    ):
        return None
    return Attention(scores, softmax, product)


def _alone(graph: Graph, op: Op) -> bool:
    """One operator reads the output, which is none of the network's."""
    return op.output not in graph.outputs and len(graph.consumers[op.output]) == 1
