"""Conv."""

from __future__ import annotations

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.window import read_window
from qcompile.ops.conv import Conv
from qcompile.types import Array


def convert_conv(node: Node, builder: Builder) -> None:
    """Conv, with constant weights and bias."""
    x = builder.source(node)
    weights, bias = read_weights(node, builder)
    window = read_window(node, builder.shape(x), weights.shape[2:])
    inputs = [x, read_filters(node, builder, weights, axis=0)]
    if bias is not None:
        if bias.shape != (weights.shape[0],):
            node.malformed(f"bias of shape {list(bias.shape)} for {weights.shape[0]} filters")
        inputs.append(read_bias(node, builder, bias))
    builder.emit(
        Conv(
            name=node.name,
            inputs=tuple(inputs),
            outputs=(node.output,),
            strides=window.strides,
            pads_begin=window.pads_begin,
            pads_end=window.pads_end,
            dilations=window.dilations,
            groups=read_groups(node),
        )
    )


def read_weights(node: Node, builder: Builder) -> tuple[Array, Array | None]:
    """Constant weights [*, *, *kernel] that agree with `kernel_shape`, and the optional bias."""
    weights = builder.required(node, 1, "weight tensor")
    if weights.ndim < 3:
        node.malformed(f"weights of shape {list(weights.shape)} have no spatial axes")
    kernel = node.integers("kernel_shape", weights.shape[2:])
    if kernel != weights.shape[2:]:
        node.malformed(f"kernel_shape {list(kernel)} but weights of shape {list(weights.shape)}")
    return weights, builder.optional(node, 2, "bias")


def read_filters(node: Node, builder: Builder, weights: Array, axis: int, groups: int = 1) -> str:
    """The weights as a constant, on their grid if they have one."""
    name = node.inputs[1]
    return builder.weights(node, name, weights, axis, groups, builder.scales.get(name))


def read_bias(node: Node, builder: Builder, bias: Array) -> str:
    """The bias as a constant; integers stay exact through their scales."""
    name = node.inputs[2]
    return builder.weights(node, name, bias, 0, scales=builder.scales.get(name))


def read_groups(node: Node) -> int:
    """The number of groups, positive."""
    groups = node.integer("group", 1)
    if groups < 1:
        node.malformed(f"group {groups} must be positive")
    return groups
