"""How many products an operator takes: what speeds and costs are counted in."""

from __future__ import annotations

import math

from qcompile.graph import Graph, Op
from qcompile.ops import Affine, BatchMatMul, Conv, ConvTranspose, LocalAttention2d, MatMul, Softmax
from qcompile.types import TensorType


def weight_type(graph: Graph, op: Op) -> TensorType | None:
    """Type of an operator's constant weights, None if it has none."""
    if isinstance(op, Conv | ConvTranspose | MatMul | Affine) and graph.is_constant(op.inputs[1]):
        return graph.types[op.inputs[1]]
    return None


def multiplications(graph: Graph, op: Op) -> int:
    """Multiply-accumulates: weights times output pixels (ConvTranspose: input pixels, a stride
    greater than 1 never multiplies by the zeros between them). Biases and scalings do not count.
    Of attention over windows, scores and weighted sums, positions outside of the image included; of
    products of computed matrices, elements of the result times the length of a row. Softmax has
    none."""
    if isinstance(op, LocalAttention2d):
        channels = graph.types[op.inputs[0]].shape[1] + graph.output_type(op).shape[1]
        return op.positions * channels * math.prod(graph.output_type(op).shape[2:])
    if isinstance(op, BatchMatMul):
        return graph.output_type(op).size * graph.types[op.inputs[0]].shape[-1]
    weight = weight_type(graph, op)
    if weight is None:
        return 0
    if isinstance(op, Conv):
        return weight.size * math.prod(graph.output_type(op).shape[2:])
    if isinstance(op, ConvTranspose):
        return weight.size * math.prod(graph.types[op.inputs[0]].shape[2:])
    if isinstance(op, MatMul):
        return weight.size * math.prod(graph.types[op.inputs[0]].shape[:-1])
    return 0


FLOPS_PER_MAC = 2
"""A multiplication and an addition."""
FLOPS_PER_WEIGHT = 5
"""Of a softmax, for each element: comparison, subtraction, exponential, addition, division."""


def flops(graph: Graph, op: Op) -> int:
    """Operations of the float network: those of the products, and of each softmax, also of that
    inside attention over windows."""
    softmax = 0
    if isinstance(op, Softmax):
        softmax = graph.output_type(op).size
    elif isinstance(op, LocalAttention2d):
        softmax = op.positions * op.heads * math.prod(graph.output_type(op).shape[2:])
    return FLOPS_PER_MAC * multiplications(graph, op) + FLOPS_PER_WEIGHT * softmax
