"""Which products of two computed matrices are attention: their weights need not be in memory.

Before: q, k -> BatchMatMul -> Softmax -> w, v -> BatchMatMul -> y
After:  q, k, v -> attention -> y                                   a few rows of w at a time

Scores and weights are the largest tensors of a transformer: the square of its tokens for each head.
A constant may be added to the scores, a position bias for instance; and the last product may be
that of values and transposed weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.numerics import Requantize
from qcompile.ops import Add, BatchMatMul, Softmax, SumOp, Transpose


@dataclass(frozen=True, slots=True)
class Attention:
    """Operators that one step computes.

    Attributes:
        scores: queries times keys, [.., queries, keys].
        bias: the sum of these and a constant, if there is one.
        softmax: over the keys, with a mask or without.
        turn: what makes [.., keys, queries] of the weights, if anything does.
        product: weights times values, [.., queries, values]; where weights are turned, values times
            weights, [.., values, queries].
    """

    scores: BatchMatMul
    bias: Add | None
    softmax: Softmax
    turn: Transpose | None
    product: BatchMatMul

    @property
    def inside(self) -> tuple[Op, ...]:
        """The operators whose results nothing else reads, in order."""
        found = (self.scores, self.bias, self.softmax, self.turn)
        return tuple(op for op in found if op is not None)

    @property
    def values(self) -> str:
        """What the weights are multiplied by."""
        return self.product.inputs[1 if self.turn is None else 0]


@dataclass(frozen=True)
class FuseAttention:
    """Finds each `BatchMatMul` of integers, `Softmax` over its rows, `BatchMatMul` of the weights,
    where nothing else reads what is in between."""

    def run(self, graph: Graph) -> Mapping[str, Attention]:
        """Name of the product of weights and values -> what is computed with it."""
        found = {}
        for op in graph.ops:
            item = _attention(graph, op) if isinstance(op, BatchMatMul) else None
            if item is not None and all(_alone(graph, inner) for inner in item.inside):
                found[op.name] = item
        return found


def _attention(graph: Graph, product: BatchMatMul) -> Attention | None:
    """What `product` takes its weights from, if it is attention."""
    turn = graph.producers.get(product.inputs[1])
    # Its columns are queries then, whose constants must be alike.
    if isinstance(turn, Transpose) and _turns(turn) and _is_uniform(product):
        softmax = graph.producers.get(turn.inputs[0])
    else:
        turn, softmax = None, graph.producers.get(product.inputs[0])
    if not isinstance(softmax, Softmax) or product.inputs[0] == product.inputs[1]:
        return None
    bias, scores = None, graph.producers.get(softmax.inputs[0])
    if isinstance(scores, Add) and _is_uniform(scores):
        bias, scores = scores, _biased(graph, scores)
    if not isinstance(scores, BatchMatMul):
        return None
    weights, out = graph.types[softmax.output], graph.output_type(product)
    floats = any(graph.output_type(op).is_float for op in (scores, softmax, product))
    # Quotients of the fused step have 32 bits. Values of a larger batch would have the weights
    # computed several times, and so would a larger bias have the scores.
    if (
        floats
        or softmax.table[0] * (softmax.levels + weights.shape[-1]) >= 1 << 32
        or softmax.axis != weights.rank - 1
        or weights.shape[:-2] != out.shape[:-2]
        or graph.output_type(scores).shape != weights.shape
    ):
        return None
    return Attention(scores, bias, softmax, turn, product)


def _turns(op: Transpose) -> bool:
    """The last two axes change places, and no others."""
    rank = len(op.permutation)
    return op.permutation == (*range(rank - 2), rank - 1, rank - 2)


def _is_uniform(op: SumOp) -> bool:
    """One epilogue for all channels."""
    return isinstance(op.epilogue, Requantize) and op.epilogue.is_uniform


def _biased(graph: Graph, add: Add) -> Op | None:
    """What computes the scores that a constant is added to."""
    computed = [value for value in add.inputs[:2] if value not in graph.constants]
    return graph.producers.get(computed[0]) if len(computed) == 1 else None


def _alone(graph: Graph, op: Op) -> bool:
    """One operator reads the output, which is none of the network's."""
    return op.output not in graph.outputs and len(graph.consumers[op.output]) == 1
