"""BatchNormalization, InstanceNormalization, GroupNormalization and LayerNormalization."""

from __future__ import annotations

import math

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.window import normal_axis
from qcompile.ops.affine import Affine
from qcompile.ops.group_norm import GroupNorm
from qcompile.ops.layer_norm import LayerNorm
from qcompile.ops.reshape import Reshape
from qcompile.types import Array

PER_GROUP_UNTIL = 20
"""Up to this opset, GroupNormalization has one scale and shift for each group."""


def convert_batch_normalization(node: Node, builder: Builder) -> None:
    """BatchNormalization at inference: scale / sqrt(var + epsilon) * (x - mean) + shift."""
    x = builder.source(node)
    shape = builder.shape(x)
    if node.flag("training_mode") or any(
        node.uses_output(index, builder.readers) for index in range(1, len(node.outputs))
    ):
        node.refuse("training mode", "export the model in evaluation mode (model.eval())")
    if len(shape) < 2:
        node.malformed(f"input of shape {list(shape)} has no channel axis")
    scale, shift, mean, variance = (
        _vector(node, builder, index, what, shape[1])
        for index, what in enumerate(("scale", "shift", "mean", "variance"), start=1)
    )
    epsilon = _epsilon(node)
    if (variance + epsilon <= 0).any():
        node.malformed("variance + epsilon is not positive")
    factor = scale / np.sqrt(variance + epsilon)
    emit_affine(node, builder, x, factor, shift - mean * factor)


def convert_instance_normalization(node: Node, builder: Builder) -> None:
    """InstanceNormalization: a group norm with one channel a group."""
    x = builder.source(node)
    shape = builder.shape(x)
    if len(shape) < 3:
        node.malformed(f"input of shape {list(shape)} has no spatial axes")
    scale = _vector(node, builder, 1, "scale", shape[1])
    shift = _vector(node, builder, 2, "shift", shape[1])
    _emit_norm(node, builder, x, scale, shift, shape[1])


def convert_group_normalization(node: Node, builder: Builder) -> None:
    """GroupNormalization of opset 18 (parameters for each group) and 21 (for each channel)."""
    x = builder.source(node)
    shape = builder.shape(x)
    groups = node.integer("num_groups", 1)
    if len(shape) < 3 or groups < 1 or shape[1] % groups:
        node.malformed(f"{groups} groups do not fit an input of shape {list(shape)}")
    entries = groups if node.opset <= PER_GROUP_UNTIL else shape[1]
    scale = _vector(node, builder, 1, "scale", entries)
    shift = _vector(node, builder, 2, "shift", entries)
    repeat = shape[1] // entries
    _emit_norm(node, builder, x, scale.repeat(repeat), shift.repeat(repeat), groups)


def convert_layer_normalization(node: Node, builder: Builder) -> None:
    """LayerNormalization over the axes from `axis` on, which are taken as one."""
    x = builder.source(node)
    shape = builder.shape(x)
    if any(node.uses_output(index, builder.readers) for index in (1, 2)):
        node.refuse("its mean or deviation is read", "leave out these outputs")
    axis = normal_axis(node, node.integer("axis", -1), len(shape))
    count = math.prod(shape[axis:])
    parameters = []
    for index, what, default in ((1, "scale", 1.0), (2, "bias", 0.0)):
        given = builder.optional(node, index, what)
        data = np.asarray(default) if given is None else given.astype(np.float64)
        if np.broadcast_shapes(data.shape, shape[axis:]) != shape[axis:]:
            node.malformed(f"{what} of shape {list(data.shape)} does not fit {list(shape[axis:])}")
        parameters.append(np.broadcast_to(data, shape[axis:]).reshape(count))
    flat = axis == len(shape) - 1
    if not flat:
        name, joined = builder.part(node, "joined")
        builder.emit(
            Reshape(name=name, inputs=(x,), outputs=(joined,), shape=(*shape[:axis], count))
        )
        x = joined
    name, value = (node.name, node.output) if flat else builder.part(node, "norm")
    inputs = (
        x,
        builder.constant(node, f"{node.output}.scale", parameters[0]),
        builder.constant(node, f"{node.output}.shift", parameters[1]),
    )
    builder.emit(
        LayerNorm(name=name, inputs=inputs, outputs=(value,), axis=axis, epsilon=_epsilon(node))
    )
    if not flat:
        builder.emit(Reshape(name=node.name, inputs=(value,), outputs=(node.output,), shape=shape))


def emit_affine(node: Node, builder: Builder, x: str, scale: Array, shift: Array) -> None:
    """An `Affine` as the node's main operator."""
    inputs = (
        x,
        builder.constant(node, f"{node.output}.scale", scale),
        builder.constant(node, f"{node.output}.shift", shift),
    )
    builder.emit(Affine(name=node.name, inputs=inputs, outputs=(node.output,)))


def _emit_norm(
    node: Node, builder: Builder, x: str, scale: Array, shift: Array, groups: int
) -> None:
    inputs = (
        x,
        builder.constant(node, f"{node.output}.scale", scale),
        builder.constant(node, f"{node.output}.shift", shift),
    )
    builder.emit(
        GroupNorm(
            name=node.name,
            inputs=inputs,
            outputs=(node.output,),
            groups=groups,
            epsilon=_epsilon(node),
        )
    )


def _epsilon(node: Node) -> float:
    epsilon = node.real("epsilon", 1e-5)
    if not 0 <= epsilon < 1e30:
        node.malformed(f"epsilon {epsilon:g} is not sensible")
    return epsilon


def _vector(node: Node, builder: Builder, index: int, what: str, size: int) -> Array:
    """A constant vector of `size` numbers, in double precision."""
    data = builder.required(node, index, what)
    if data.shape != (size,):
        node.malformed(f"{what} of shape {list(data.shape)} instead of [{size}]")
    return data.astype(np.float64)
