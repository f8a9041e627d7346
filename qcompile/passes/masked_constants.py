"""What is left of removed filters: the constants that their readers would see."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LinearResize,
    LocalAttention2d,
    MatMul,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    Pointwise,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    SumOp,
    Transpose,
)
from qcompile.passes.channel_classes import Channel, keeps_channels, reshape_blocks
from qcompile.passes.fold_affine import channel_vector
from qcompile.passes.parameters import exact, vector
from qcompile.types import Array

Constants = Mapping[Channel, float]
"""Channels of one value each, everywhere."""


def masked_constants(graph: Graph, classes: Collection[frozenset[Channel]]) -> Constants:
    """The constants that removed channels hold in the masked network, as their readers see them.

    In the masked network the weights of every filter of a class are zero and its bias stays. So a
    filter's output is a constant map, and so is what activations, norms, pools, resizes, sums and
    gates make of it. Where such a channel is padded it is padded with its constant, not with zero:
    then a convolution adds the same number to every position of its outputs, borders included, and
    its bias can hold it. (What zero padding would make of a constant, a frame, no bias can hold.)

    A transposed convolution makes a pattern of a constant, as local attention does, and some
    operators no constant at all (an attention map that multiplies it). A class that one of these
    reads is masked by zeros where it is read, instead. Queries and values of 0 are no obstacle to
    local attention: such a query takes no part in the scores, whatever its key.

    Args:
        graph: a float graph.
        classes: what is removed, whole `channel_classes`.

    Returns:
        The non-zero constants of the channels that convolutions and matrix products read.
    """
    removed = {channel for channels in classes for channel in channels}
    values = _propagate(graph, removed)
    read: dict[Channel, float] = {}
    refused: set[Channel] = set()
    for op in graph.ops:
        if isinstance(op, LocalAttention2d):
            for name in (op.inputs[0], op.inputs[2]):
                every = ((name, index) for index in range(graph.types[name].shape[1]))
                gone = [channel for channel in every if channel in removed]
                refused.update(channel for channel in gone if values[name][channel[1]] != 0)
        if not mixes_channels(graph, op):
            continue
        for index in range(graph.types[op.inputs[0]].shape[1]):
            channel = (op.inputs[0], index)
            value = float(values[op.inputs[0]][index]) if channel in removed else 0.0
            if not math.isfinite(value) or (value and isinstance(op, ConvTranspose)):
                refused.add(channel)
            elif value:
                read[channel] = value
    result: dict[Channel, float] = {}
    for channels in classes:
        if refused.isdisjoint(channels):
            result |= {channel: read[channel] for channel in sorted(channels & read.keys())}
    return result


def answer_to(
    graph: Graph, op: Conv | ConvTranspose | MatMul, constants: Constants
) -> Array | None:
    """What constant input channels add to every output channel [M]; None if there are none."""
    if isinstance(op, ConvTranspose) or not mixes_channels(graph, op):
        return None
    x = op.inputs[0]
    inputs = np.array([constants.get((x, c), 0.0) for c in range(graph.types[x].shape[1])])
    if not inputs.any():
        return None
    weights = exact(graph, op.inputs[1])
    if isinstance(op, Conv):
        weights = weights.reshape(*weights.shape[:2], -1).sum(2).T
    return np.asarray(inputs @ weights)


def mixes_channels(graph: Graph, op: Op) -> bool:
    """Every output channel depends on every input channel."""
    match op:
        case Conv() | ConvTranspose():
            return op.groups == 1
        case MatMul():
            return graph.types[op.inputs[0]].rank == 2
    return False


def _propagate(graph: Graph, removed: Collection[Channel]) -> dict[str, Array]:
    """The constants [C] of every value; NaN for channels that stay or are not constant."""
    values: dict[str, Array] = {}
    touched = {name for name, _ in removed}
    for op in graph.ops:
        if op.output not in touched:
            continue
        shape = graph.types[op.output].shape
        with np.errstate(all="ignore"):
            result = np.broadcast_to(_rule(graph, op, values), (shape[1],)).astype("float64")
            if isinstance(op, SumOp):
                if op.channel_axis(len(shape)) == 1:
                    result = op.activation.apply(result, 0)
                elif not op.activation.is_identity:
                    result = np.full(shape[1], np.nan)
        gone = [(op.output, index) in removed for index in range(shape[1])]
        values[op.output] = np.where(gone, result, np.nan)
    return values


def _rule(graph: Graph, op: Op, values: Mapping[str, Array]) -> Array:
    """What an operator makes of constants, before its activation; NaN: no constant."""
    unknown = np.array(np.nan)
    channels = graph.types[op.output].shape[1]
    x = values.get(op.inputs[0], unknown)
    match op:
        case Conv() | ConvTranspose():
            return vector(graph, op.inputs, 2, channels, 0.0)
        case MatMul() if graph.types[op.inputs[0]].rank == 2:
            return vector(graph, op.inputs, 2, channels, 0.0)
        case Affine():
            scale = vector(graph, op.inputs, 1, channels, 1.0)
            return np.asarray(scale * x + vector(graph, op.inputs, 2, channels, 0.0))
        case LocalAttention2d():
            values_of = values.get(op.inputs[2], unknown)
            shift = vector(graph, op.inputs, 5, channels, 0.0)
            return np.where(values_of == 0, shift, np.nan)
        case GroupNorm():
            return _normalised(graph, op, np.broadcast_to(x, (channels,)))
        case Pointwise():
            return op.function(x)
        case Rescale() | MaxPool() | AveragePool() | NearestResize() | LinearResize():
            return x
        case Concat() if op.axis == 1:
            parts = [
                np.broadcast_to(values.get(name, unknown), (graph.types[name].shape[1],))
                for name in op.inputs
            ]
            return np.concatenate(parts)
        case Add() | Mul() | Div():
            return _combined(graph, op, values)
        case Reshape():
            blocks = reshape_blocks(graph, op)
            return x.repeat(blocks) if blocks and x.ndim else unknown
        case Slice() if x.ndim:
            return x[op.starts[1] : op.starts[1] + op.sizes[1]]
        case Transpose() | ReduceMean() | Pad() if keeps_channels(graph, op):
            return x
    return unknown


def _combined(graph: Graph, op: Add | Mul | Div, values: Mapping[str, Array]) -> Array:
    """Sum, product or quotient of two operands, channel by channel."""
    shape = graph.types[op.output].shape
    operands: list[Array] = []
    for name in op.inputs:
        known: Array | None = values.get(name)
        if graph.is_constant(name):
            known = channel_vector(graph.constants[name], shape)
        operands.append(np.array(np.nan) if known is None else known)
    a, b = operands
    if isinstance(op, Add):
        return np.asarray(op.weights[0] * a + op.weights[1] * b)
    if isinstance(op, Mul):
        return np.where((a == 0) | (b == 0), 0.0, a * b)
    return np.asarray(a / b)


def _normalised(graph: Graph, op: GroupNorm, x: Array) -> Array:
    """Constant channels have the statistics of their group's constants."""
    channels = x.shape[0]
    groups = x.reshape(op.groups, -1)
    centred = groups - groups.mean(1, keepdims=True)
    variance = np.square(centred).mean(1, keepdims=True)
    normal = (centred / np.sqrt(variance + op.epsilon)).reshape(-1)
    scale = vector(graph, op.inputs, 1, channels, 1.0)
    return np.asarray(scale * normal + vector(graph, op.inputs, 2, channels, 0.0))
