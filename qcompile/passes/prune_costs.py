"""What a network costs with some of its filters gone, without removing them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph
from qcompile.multiplications import FLOPS_PER_MAC, FLOPS_PER_WEIGHT, flops
from qcompile.ops import BatchMatMul, Conv, ConvTranspose, LocalAttention2d, MatMul, Softmax
from qcompile.passes.channel_classes import loses_heads

FLOAT_BITS = 32


@dataclass(frozen=True, slots=True)
class _Layer:
    """One operator with weights: how many they are is inputs * outputs * rest / groups."""

    name: str
    x: str
    y: str
    inputs: int
    outputs: int
    weights: int
    macs_per_weight: int
    groups: int
    bits: int
    bias: int

    def weights_left(self, left: Mapping[str, int]) -> int:
        """Groups go as a whole, so that a filter of several groups keeps its size."""
        outputs = left.get(self.y, self.outputs)
        if self.groups > 1:
            return self.weights * outputs // self.outputs
        inputs = left.get(self.x, self.inputs)
        return self.weights * outputs * inputs // (self.outputs * self.inputs)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Local attention; `pairs` are its pixels times the positions of the window."""

    q: str
    y: str
    queries: int
    outputs: int
    heads: int
    loses_heads: bool
    pairs: int

    def flops_left(self, left: Mapping[str, int]) -> int:
        queries = left.get(self.q, self.queries)
        outputs = left.get(self.y, self.outputs)
        heads = self.heads * queries // self.queries if self.loses_heads else self.heads
        each = FLOPS_PER_MAC * (queries + outputs) + FLOPS_PER_WEIGHT * heads
        return self.pairs * each


class PruneCosts:
    """FLOPs and bytes of a float graph as functions of the channels that are left.

    A FLOP is half a multiply-accumulate; biases, norms and resizes do not count. Those of products
    of computed matrices and of softmax (`multiplications.flops`) are taken as they are. Bytes are
    those of the weights at their nominal width, like 'weights, nominal' of the report (layers that
    stay in float have their biases there, too).
    """

    def __init__(self, graph: Graph, weight_bits: Mapping[str, int] | None = None) -> None:
        """
        Args:
            graph: a float graph.
            weight_bits: operator name -> bits of a weight; 32 where it has none.
        """
        bits = weight_bits or {}
        self._layers = tuple(
            _layer(graph, op, bits.get(op.name, FLOAT_BITS))
            for op in graph.ops
            if isinstance(op, (Conv, ConvTranspose, MatMul))
        )

        self._windows = tuple(
            _windows(graph, op) for op in graph.ops if isinstance(op, LocalAttention2d)
        )
        self._attention = sum(
            flops(graph, op) for op in graph.ops if isinstance(op, BatchMatMul | Softmax)
        )

    def flops(self, left: Mapping[str, int]) -> int:
        """Floating point operations with `left` channels of each value (all, where not said)."""
        macs = sum(layer.weights_left(left) * layer.macs_per_weight for layer in self._layers)
        return (
            FLOPS_PER_MAC * macs
            + sum(item.flops_left(left) for item in self._windows)
            + self._attention
        )

    def bytes(self, left: Mapping[str, int]) -> int:
        """Bytes of the weights with `left` channels of each value."""
        total = 0
        for layer in self._layers:
            total += -(-layer.weights_left(left) * layer.bits // 8)
            if layer.bits == FLOAT_BITS:
                total += layer.bias * 4 * left.get(layer.y, layer.outputs)
        return total


def _layer(graph: Graph, op: Conv | ConvTranspose | MatMul, bits: int) -> _Layer:
    x, y = graph.types[op.inputs[0]].shape, graph.types[op.output].shape
    weights = graph.types[op.inputs[1]].size
    bias = len(op.inputs) - 2
    if isinstance(op, MatMul) and len(x) != 2:
        # Its rows are positions, not filters: they cost, but no weight goes with them.
        rows = math.prod(x[:-1])
        return _Layer(op.name, "", "", 1, 1, weights, rows, 1, bits, bias * y[-1])
    pixels = math.prod(x[2:] if isinstance(op, ConvTranspose) else y[2:])
    groups = 1 if isinstance(op, MatMul) else op.groups
    return _Layer(op.name, op.inputs[0], op.output, x[1], y[1], weights, pixels, groups, bits, bias)


def _windows(graph: Graph, op: LocalAttention2d) -> _Windows:
    queries, y = graph.types[op.inputs[0]].shape, graph.output_type(op).shape
    pairs = op.positions * math.prod(y[2:])
    whole = loses_heads(graph, op)
    return _Windows(op.inputs[0], op.output, queries[1], y[1], op.heads, whole, pairs)
