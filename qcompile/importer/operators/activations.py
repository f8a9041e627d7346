"""Piecewise-linear activations: each becomes a `Rescale` that a pass fuses into its producer."""

from __future__ import annotations

import math

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.ops.activation import RELU, Activation
from qcompile.ops.add import Add
from qcompile.ops.mul import Mul
from qcompile.ops.rescale import Rescale
from qcompile.types import Array

FLOAT32_MAX = float(np.finfo(np.float32).max)


def convert_relu(node: Node, builder: Builder) -> None:
    """Relu: slope 0 for negative values."""
    emit_rescale(node, builder, RELU)


def convert_leaky_relu(node: Node, builder: Builder) -> None:
    """LeakyRelu: one slope for negative values."""
    emit_rescale(node, builder, Activation(slope=(_finite(node, node.real("alpha", 0.01)),)))


def convert_prelu(node: Node, builder: Builder) -> None:
    """PRelu: one slope, or one a channel; for others max(x, 0) + slope * min(x, 0)."""
    x = builder.source(node)
    shape = builder.shape(x)
    slope = builder.required(node, 1, "slope")
    if slope.ndim > len(shape):
        node.malformed(f"slope of shape {list(slope.shape)} for an input of shape {list(shape)}")
    aligned = slope.reshape((1,) * (len(shape) - slope.ndim) + slope.shape)
    per_channel = (1, *shape[1:2], *(1 for _ in shape[2:]))
    if slope.size != 1 and aligned.shape != per_channel:
        _emit_general_prelu(node, builder, x, aligned)
        return
    with np.errstate(over="ignore"):
        values = slope.astype(np.float32).reshape(-1).tolist()
    emit_rescale(node, builder, Activation(slope=tuple(_finite(node, s) for s in values)))


def _emit_general_prelu(node: Node, builder: Builder, x: str, slope: Array) -> None:
    name, above = builder.part(node, "above")
    builder.emit(Rescale(name=name, inputs=(x,), outputs=(above,), activation=RELU))
    name, below = builder.part(node, "below")
    negative = Activation(high=0.0)
    builder.emit(Rescale(name=name, inputs=(x,), outputs=(below,), activation=negative))
    name, scaled = builder.part(node, "scaled")
    factors = builder.constant(node, node.inputs[1], slope)
    builder.emit(Mul(name=name, inputs=(below, factors), outputs=(scaled,)))
    builder.emit(Add(name=node.name, inputs=(above, scaled), outputs=(node.output,)))


def convert_clip(node: Node, builder: Builder) -> None:
    """Clip: bounds are attributes up to opset 10, constant inputs since."""
    if node.opset < 11:
        low, high = node.real("min", -math.inf), node.real("max", math.inf)
    else:
        least, most = builder.scalar(node, 1, "min"), builder.scalar(node, 2, "max")
        low = -math.inf if least is None else least
        high = math.inf if most is None else most
    emit_bounds(node, builder, low, high)


def convert_maximum(node: Node, builder: Builder) -> None:
    """Max of one tensor and constant numbers: some exporters write ReLU so."""
    emit_bounds(node, builder, max(_numbers(node, builder), default=-math.inf), math.inf)


def convert_minimum(node: Node, builder: Builder) -> None:
    """Min of one tensor and constant numbers."""
    emit_bounds(node, builder, -math.inf, min(_numbers(node, builder), default=math.inf))


def convert_neg(node: Node, builder: Builder) -> None:
    """Neg: gain -1."""
    emit_rescale(node, builder, Activation(gain=(-1.0,)))


def convert_abs(node: Node, builder: Builder) -> None:
    """Abs: slope -1 for negative values."""
    emit_rescale(node, builder, Activation(slope=(-1.0,)))


def emit_bounds(node: Node, builder: Builder, low: float, high: float) -> None:
    """Clip to low..high; where they cross, ONNX says that everything becomes `high`."""
    if math.isnan(low) or math.isnan(high):
        node.malformed("a bound is NaN")
    low = -math.inf if low <= -FLOAT32_MAX else low
    high = math.inf if high >= FLOAT32_MAX else high
    if low == math.inf or high == -math.inf:
        node.malformed("a bound is infinite")
    emit_rescale(node, builder, Activation(low=min(low, high), high=high))


def emit_rescale(node: Node, builder: Builder, activation: Activation) -> None:
    """A `Rescale` as the node's main operator."""
    x = _first_computed(node, builder)
    builder.emit(
        Rescale(
            name=node.name,
            inputs=(builder.source(node, x),),
            outputs=(node.output,),
            activation=activation,
        )
    )


def _first_computed(node: Node, builder: Builder) -> int:
    """Index of the first input that is not constant, else 0."""
    computed = (index for index, v in enumerate(node.inputs) if builder.data(v) is None)
    return next(computed, 0)


def _numbers(node: Node, builder: Builder) -> list[float]:
    """The constant inputs of Max or Min, each of one number; exactly one input is computed."""
    constants = [builder.data(value) for value in node.inputs]
    computed = sum(data is None for data in constants)
    rank = max(len(builder.shape_of(node, index)) for index in range(len(node.inputs)))
    numbers = [float(data.reshape(-1)[0]) for data in constants if data is not None and data.size]
    plain = all(data is None or data.size == 1 for data in constants)
    widest = all(
        len(builder.shape_of(node, index)) == rank
        for index, data in enumerate(constants)
        if data is None
    )
    if computed != 1 or not plain or not widest:
        node.refuse(
            f"{node.operator} of {computed} computed tensors and constants that are not one number",
            "only bounds of one number are supported; use MaxPool or Clip",
        )
    return numbers


def _finite(node: Node, value: float) -> float:
    if not math.isfinite(value):
        node.malformed("a slope is NaN or infinite")
    return value
