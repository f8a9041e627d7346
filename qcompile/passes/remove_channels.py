"""Cuts channels out of values, and their parameters out of the operators around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    Activation,
    Add,
    Affine,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    MatMul,
    Mul,
    Reshape,
    Slice,
    SumOp,
)
from qcompile.passes.channel_classes import Channel
from qcompile.passes.parameters import add_float
from qcompile.types import Array

_Kept = Mapping[str, Array]
"""For each value that loses channels, the indices that stay."""


def remove_channels(graph: Graph, removed: frozenset[Channel]) -> Graph:
    """The graph without the given channels, a union of whole `channel_classes`."""
    kept: dict[str, Array] = {}
    for name in sorted({name for name, _ in removed}):
        count = graph.types[name].shape[1]
        kept[name] = np.array([c for c in range(count) if (name, c) not in removed], dtype="int64")
    rewriter = Rewriter(graph)
    for op in graph.ops:
        touched = [name for name in (*op.inputs, *op.outputs) if name in kept]
        if touched:
            rewriter.replace(op, _cut(graph, rewriter, op, kept))
    for name in kept:
        rewriter.forget_type(name)
    return rewriter.finish()


def _cut(graph: Graph, rewriter: Rewriter, op: Op, kept: _Kept) -> Op:
    outputs = kept.get(op.output)
    if isinstance(op, SumOp) and outputs is not None:
        axis = op.channel_axis(graph.types[op.output].rank)
        if axis == 1:
            op = dataclasses.replace(op, activation=_cut_activation(op.activation, outputs))
    match op:
        case Conv():
            return _cut_conv(graph, rewriter, op, kept)
        case ConvTranspose():
            return _cut_conv_transpose(graph, rewriter, op, kept)
        case MatMul():
            return _cut_matmul(graph, rewriter, op, kept)
        case Affine():
            return dataclasses.replace(op, inputs=_parameters(graph, rewriter, op, kept))
        case GroupNorm():
            size = graph.types[op.inputs[0]].shape[1] // op.groups
            groups = len(kept[op.inputs[0]]) // size
            inputs = _parameters(graph, rewriter, op, kept)
            return dataclasses.replace(op, inputs=inputs, groups=groups)
        case Add() | Mul() | Div():
            return dataclasses.replace(op, inputs=_operands(graph, rewriter, op, kept))
        case Reshape():
            count = len(kept[op.output])
            return dataclasses.replace(op, shape=(op.shape[0], count, *op.shape[2:]))
        case Slice():
            count = len(kept[op.output])
            return dataclasses.replace(op, sizes=(op.sizes[0], count, *op.sizes[2:]))
    return op


def _cut_activation(function: Activation, outputs: Array) -> Activation:
    def part(vector: tuple[float, ...]) -> tuple[float, ...]:
        return vector if len(vector) == 1 else tuple(vector[index] for index in outputs)

    return dataclasses.replace(
        function,
        slope=part(function.slope),
        gain=part(function.gain),
        shift=part(function.shift),
    )


def _indices(graph: Graph, kept: _Kept, name: str) -> Array:
    return kept.get(name, np.arange(graph.types[name].shape[1]))


def _with_weights(
    graph: Graph, rewriter: Rewriter, op: Conv | ConvTranspose | MatMul, weights: Array, out: Array
) -> tuple[str, ...]:
    """The inputs of `op` with new weights and the bias of the outputs that stay."""
    names = [op.inputs[0], add_float(rewriter, f"{op.name}.weight", weights)]
    if len(op.inputs) == 3:
        names.append(add_float(rewriter, f"{op.name}.bias", graph.constants[op.inputs[2]][out]))
    return tuple(names)


def _cut_conv(graph: Graph, rewriter: Rewriter, op: Conv, kept: _Kept) -> Conv:
    weights = graph.constants[op.inputs[1]]
    ins, outs = (_indices(graph, kept, name) for name in (op.inputs[0], op.output))
    groups = op.groups
    weights = weights[outs]
    if groups == 1:
        weights = weights[:, ins]
    else:
        groups = len(ins) // weights.shape[1]
    inputs = _with_weights(graph, rewriter, op, weights, outs)
    return dataclasses.replace(op, inputs=inputs, groups=groups)


def _cut_conv_transpose(
    graph: Graph, rewriter: Rewriter, op: ConvTranspose, kept: _Kept
) -> ConvTranspose:
    weights = graph.constants[op.inputs[1]]
    ins, outs = (_indices(graph, kept, name) for name in (op.inputs[0], op.output))
    groups = op.groups
    weights = weights[ins]
    if groups == 1:
        weights = weights[:, outs]
    else:
        groups = len(outs) // weights.shape[1]
    inputs = _with_weights(graph, rewriter, op, weights, outs)
    return dataclasses.replace(op, inputs=inputs, groups=groups)


def _cut_matmul(graph: Graph, rewriter: Rewriter, op: MatMul, kept: _Kept) -> MatMul:
    if graph.types[op.inputs[0]].rank > 2:
        return op
    ins, outs = (_indices(graph, kept, name) for name in (op.inputs[0], op.output))
    weights = graph.constants[op.inputs[1]][ins][:, outs]
    return dataclasses.replace(op, inputs=_with_weights(graph, rewriter, op, weights, outs))


def _parameters(
    graph: Graph, rewriter: Rewriter, op: Affine | GroupNorm, kept: _Kept
) -> tuple[str, ...]:
    names = (
        add_float(rewriter, f"{op.name}.{suffix}", graph.constants[name][kept[op.output]])
        for name, suffix in zip(op.inputs[1:], ("scale", "shift"), strict=False)
    )
    return (op.inputs[0], *names)


def _operands(graph: Graph, rewriter: Rewriter, op: Op, kept: _Kept) -> tuple[str, ...]:
    """Constants lose what lies along the channel axis of the output."""
    rank = graph.types[op.output].rank
    names: list[str] = []
    for name in op.inputs:
        if graph.is_constant(name):
            data = graph.constants[name]
            axis = 1 - (rank - data.ndim)
            if axis >= 0 and data.shape[axis] > 1:
                data = np.take(data, kept[op.output], axis=axis)
                name = add_float(rewriter, name, data)
        names.append(name)
    return tuple(names)
