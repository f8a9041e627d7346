"""Weights become codes with one scale per output channel.

Conv(%x, @w f32[16,1,3,3])   ->   Conv(%x, @w i4n[16,1,3,3] with 16 scales)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import ConvTranspose, MatMul
from qcompile.passes.assign_formats import WEIGHTED
from qcompile.passes.weight_quantizers import quantize_rows
from qcompile.plan import Plan
from qcompile.types import Array, Quantization, TensorType


@dataclass(frozen=True)
class QuantizeWeights:
    """Quantizes the weights of Conv, ConvTranspose and MatMul as the plan says."""

    name: ClassVar[str] = "quantize-weights"
    plan: Plan

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        for op in graph.ops:
            layer = self.plan.layers[op.name]
            if not isinstance(op, WEIGHTED) or layer.weights is None or layer.weights.is_float:
                continue
            data = graph.constants[op.inputs[1]]
            quantized = quantize_rows(to_rows(op, data), layer.weights)
            kind = TensorType(
                data.shape,
                quantized.element,
                Quantization(tuple(quantized.scales.tolist()), channel_axis(op)),
                quantized.codebook,
            )
            codes = from_rows(op, quantized.codes, data.shape).astype(quantized.element.storage)
            # Shared weights may be needed in another format elsewhere: each layer has its own.
            name = rewriter.add_constant(f"{op.inputs[1]}.codes", codes, kind)
            inputs = (op.inputs[0], name, *op.inputs[2:])
            rewriter.replace(op, dataclasses.replace(op, inputs=inputs))
        return rewriter.finish()


def channel_axis(op: Op) -> int:
    """The axis of the weights that output channels lie on (within a group for ConvTranspose)."""
    return 1 if isinstance(op, ConvTranspose | MatMul) else 0


def to_rows(op: Op, weights: Array) -> Array:
    """Weights as [output channels, n]."""
    if isinstance(op, ConvTranspose):
        grouped = np.stack(np.split(weights, op.groups, axis=0))
        return np.moveaxis(grouped, 2, 1).reshape(op.groups * weights.shape[1], -1)
    if isinstance(op, MatMul):
        return weights.T
    return weights.reshape(weights.shape[0], -1)


def from_rows(op: Op, rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_rows`."""
    if isinstance(op, ConvTranspose):
        per_group = shape[0] // op.groups
        split = rows.reshape(op.groups, shape[1], per_group, *shape[2:])
        return np.moveaxis(split, 2, 1).reshape(shape)
    if isinstance(op, MatMul):
        return np.ascontiguousarray(rows.T)
    return rows.reshape(shape)
