"""Folds batch norms and multiplications or additions of constants into neighbouring weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    Add,
    Affine,
    Conv,
    ConvTranspose,
    GroupNorm,
    LocalAttention2d,
    MatMul,
    Mul,
    Rescale,
    Steps,
    SumOp,
    TernaryTanh,
)
from qcompile.passes.base import until_stable
from qcompile.passes.parameters import add_float, exact, vector
from qcompile.types import Array

_Weighted = Conv | ConvTranspose | MatMul


@dataclass(frozen=True, slots=True)
class FoldAffine:
    """Folds `Affine` backwards into the weights that feed it, or forwards where that is exact.

    Before::

        %t = Conv 'c'(%x, @w, @b)
        %y = Affine 'bn'(%t, @scale, @shift) activation=relu

    After, with w' = scale * w and b' = scale * b + shift::

        %y = Conv 'c'(%x, @w', @b') activation=relu

    `Mul` and `Add` of a constant per channel count as `Affine`. Forwards, a scale folds into any
    convolution; a shift only into one without padding, since the padding is zero after the shift.
    An `Affine` behind an activation stays for `FuseActivations`. So does one in front of a ternary
    function, whose strict limits the rounding of w' to float32 would move.

    Attributes:
        into_weights: whether weights may change. Quantizers of the literature take them as trained;
            a norm is then part of the epilogue, at no cost either.
    """

    name: ClassVar[str] = "fold-affine"
    into_weights: bool = True

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, lambda graph: _fold_one(graph, self.into_weights))


def _fold_one(graph: Graph, into_weights: bool) -> Graph | None:
    for op in graph.ops:
        edited = None
        if isinstance(op, (Mul, Add)):
            edited = _as_affine(graph, op)
        elif isinstance(op, Affine):
            edited = _fold_backwards(graph, op, into_weights)
            if edited is None and into_weights:
                edited = _fold_forwards(graph, op)
        if edited is not None:
            return edited
    return None


def _as_affine(graph: Graph, op: Mul | Add) -> Graph | None:
    """x * c, x + c, x - c and c - x with one c per channel become `Affine`."""
    fixed = [graph.is_constant(name) for name in op.inputs]
    if sum(fixed) != 1:
        return None
    which = fixed.index(True)
    x, constant = op.inputs[1 - which], op.inputs[which]
    shape = graph.types[x].shape
    per_channel = channel_vector(graph.constants[constant], shape)
    if per_channel is None or graph.types[op.output].shape != shape:
        return None
    if isinstance(op, Mul):
        scale, shift = per_channel, np.zeros(shape[1])
    else:
        scale = np.full(shape[1], float(op.weights[1 - which]))
        shift = per_channel * op.weights[which]
    rewriter = Rewriter(graph)
    inputs = (
        x,
        add_float(rewriter, f"{op.name}.scale", scale),
        add_float(rewriter, f"{op.name}.shift", shift),
    )
    rewriter.replace(
        op, Affine(name=op.name, inputs=inputs, outputs=op.outputs, activation=op.activation)
    )
    return rewriter.finish()


def channel_vector(data: Array, shape: tuple[int, ...]) -> Array | None:
    """`data` as a double vector [C] if it broadcasts to `shape` along axis 1 alone, else None."""
    if len(shape) < 2 or data.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - data.ndim) + data.shape
    if any(size != 1 and (axis != 1 or size != shape[1]) for axis, size in enumerate(full)):
        return None
    return np.array(np.broadcast_to(data.astype("float64").reshape(-1), (shape[1],)))


def _fold_backwards(graph: Graph, affine: Affine, into_weights: bool) -> Graph | None:
    producer = graph.producers.get(affine.inputs[0])
    if (
        not isinstance(producer, SumOp)
        or producer.activation != IDENTITY
        or graph.only_consumer(producer.output) is not affine
        or producer.channel_axis(graph.types[producer.output].rank) != 1
        or (isinstance(producer, _Weighted) and not into_weights)
        or (isinstance(producer, _Weighted) and _feeds_steps(graph, affine.output))
    ):
        return None
    channels = graph.types[affine.output].shape[1]
    scale = vector(graph, affine.inputs, 1, channels, 1.0)
    shift = vector(graph, affine.inputs, 2, channels, 0.0)
    rewriter = Rewriter(graph)
    first = 4 if isinstance(producer, LocalAttention2d) else 1
    if isinstance(producer, _Weighted):
        weights = exact(graph, producer.inputs[1])
        bias = vector(graph, producer.inputs, 2, channels, 0.0)
        parameters = (scaled_outputs(producer, weights, scale), bias * scale + shift)
        suffixes = ("weight", "bias")
    elif isinstance(producer, (Affine, GroupNorm, LocalAttention2d)):
        old_scale = vector(graph, producer.inputs, first, channels, 1.0)
        old_shift = vector(graph, producer.inputs, first + 1, channels, 0.0)
        parameters = (old_scale * scale, old_shift * scale + shift)
        suffixes = ("scale", "shift")
    else:
        return None
    names = [
        add_float(rewriter, f"{producer.name}.{suffix}", data)
        for suffix, data in zip(suffixes, parameters, strict=True)
    ]
    if isinstance(producer, _Weighted):
        _keep_grid(graph, rewriter, producer.inputs[1], names[0], scale)
    folded = dataclasses.replace(
        producer,
        inputs=(*producer.inputs[:first], *names),
        outputs=affine.outputs,
        activation=affine.activation,
    )
    rewriter.replace(producer, folded)
    rewriter.remove(affine)
    return rewriter.finish()


def _feeds_steps(graph: Graph, value: str) -> bool:
    """Whether only functions with steps at exact limits read a value."""
    readers = graph.consumers[value]
    return bool(readers) and all(
        isinstance(reader, TernaryTanh | Steps)
        or (isinstance(reader, Rescale) and _feeds_steps(graph, reader.output))
        for reader in readers
    )


def _keep_grid(graph: Graph, rewriter: Rewriter, old: str, new: str, factor: Array) -> None:
    """Weights that came on a grid are on the grid times the factor of each output channel."""
    kind = graph.types[old]
    if kind.quantization is None:
        return
    magnitudes = np.where(factor == 0, 1.0, np.abs(factor))
    scales = tuple((np.asarray(kind.quantization.scale) * magnitudes).tolist())
    grid = dataclasses.replace(kind.quantization, scale=scales)
    rewriter.set_type(new, dataclasses.replace(kind, quantization=grid))


def scaled_outputs(op: _Weighted, weights: Array, scale: Array) -> Array:
    """Weights of an operator whose output channels are multiplied by `scale`."""
    if isinstance(op, MatMul):
        return weights * scale
    if isinstance(op, Conv):
        return weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
    inputs, per_group = weights.shape[:2]
    grouped = weights.reshape(op.groups, inputs // op.groups, per_group, *weights.shape[2:])
    factors = scale.reshape(op.groups, 1, per_group, *[1] * (weights.ndim - 2))
    return (grouped * factors).reshape(weights.shape)


def _fold_forwards(graph: Graph, affine: Affine) -> Graph | None:
    consumer = graph.only_consumer(affine.output)
    if affine.activation != IDENTITY or not isinstance(consumer, _Weighted):
        return None
    channels = graph.types[affine.output].shape[1]
    scale = vector(graph, affine.inputs, 1, channels, 1.0)
    shift = vector(graph, affine.inputs, 2, channels, 0.0)
    if shift.any() and not _takes_shift(consumer):
        return None
    if isinstance(consumer, MatMul) and graph.types[affine.output].rank != 2:
        return None
    if graph.types[consumer.inputs[1]].quantization is not None:
        return None  # scaled inputs would take the weights off the grid that they came with
    weights = exact(graph, consumer.inputs[1])
    outputs = graph.types[consumer.output].shape[
        consumer.channel_axis(graph.types[consumer.output].rank)
    ]
    bias = vector(graph, consumer.inputs, 2, outputs, 0.0)
    if shift.any():
        bias = bias + _answer_to(consumer, weights, shift)
    rewriter = Rewriter(graph)
    inputs = (
        affine.inputs[0],
        add_float(rewriter, f"{consumer.name}.weight", scaled_inputs(consumer, weights, scale)),
        add_float(rewriter, f"{consumer.name}.bias", bias),
    )
    rewriter.replace(consumer, dataclasses.replace(consumer, inputs=inputs))
    rewriter.remove(affine)
    return rewriter.finish()


def _takes_shift(op: Op) -> bool:
    """A constant input gives the same output everywhere."""
    if isinstance(op, Conv):
        return not any(op.pads_begin) and not any(op.pads_end)
    return isinstance(op, MatMul)


def scaled_inputs(op: _Weighted, weights: Array, scale: Array) -> Array:
    """Weights of an operator whose input channels were multiplied by `scale`."""
    if isinstance(op, Conv):
        grouped = weights.reshape(op.groups, -1, *weights.shape[1:])
        factors = scale.reshape(op.groups, 1, -1, *[1] * (weights.ndim - 2))
        return (grouped * factors).reshape(weights.shape)
    return weights * scale.reshape(-1, *[1] * (weights.ndim - 1))


def _answer_to(op: _Weighted, weights: Array, shift: Array) -> Array:
    """What the constant input `shift` adds to each output channel."""
    if isinstance(op, MatMul):
        return np.asarray(shift @ weights)
    per_tap = weights.reshape(*weights.shape[:2], -1).sum(2)
    grouped = per_tap.reshape(getattr(op, "groups", 1), -1, per_tap.shape[1])
    inputs = shift.reshape(grouped.shape[0], grouped.shape[2], 1)
    return np.asarray((grouped @ inputs).reshape(-1))
