"""Pooling, means and norms."""

from __future__ import annotations

from typing import Any

from qcompile.exporter.scope import Scope
from qcompile.ops import (
    AveragePool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    MaxPoolIndex,
    MaxUnpool,
    ReduceMean,
)

DILATED_AVERAGE_OPSET = 19
AXES_INPUT_OPSET = 18


def max_pool(op: MaxPool, scope: Scope) -> str:
    """MaxPool."""
    return scope.node(
        "MaxPool",
        scope.real(),
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        pads=[*op.pads_begin, *op.pads_end],
        dilations=list(op.dilations),
        ceil_mode=int(op.ceil_mode),
    )


def max_pool_index(op: MaxPoolIndex, scope: Scope) -> str:
    """The second output of a MaxPool: positions in the whole tensor."""
    pooled = scope.writer.fresh(f"{op.output}.pooled")
    output = scope.node(
        "MaxPool",
        scope.real(),
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        pads=[*op.pads_begin, *op.pads_end],
        dilations=list(op.dilations),
        ceil_mode=int(op.ceil_mode),
        part="pool",
    )
    scope.writer.nodes[-1].output.insert(0, pooled)
    return scope.node("Identity", output)


def max_unpool(op: MaxUnpool, scope: Scope) -> str:
    """MaxUnpool into the shape that was pooled."""
    shape = scope.constant("shape", scope.kind.shape, "int64")
    return scope.node(
        "MaxUnpool",
        scope.real(),
        scope.real(1),
        shape,
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        pads=[*op.pads_begin, *op.pads_begin],
    )


def average_pool(op: AveragePool, scope: Scope) -> str:
    """AveragePool."""
    attributes: dict[str, Any] = {}
    if any(step != 1 for step in op.dilations):
        scope.writer.need(DILATED_AVERAGE_OPSET)
        attributes["dilations"] = list(op.dilations)
    return scope.node(
        "AveragePool",
        scope.real(),
        kernel_shape=list(op.kernel),
        strides=list(op.strides),
        pads=[*op.pads_begin, *op.pads_end],
        ceil_mode=int(op.ceil_mode),
        count_include_pad=int(op.count_include_pad),
        **attributes,
    )


def reduce_mean(op: ReduceMean, scope: Scope) -> str:
    """GlobalAveragePool where it is one: the form that all opsets share."""
    rank = len(scope.shape())
    if op.keepdims and rank > 2 and op.axes == tuple(range(2, rank)):
        return scope.node("GlobalAveragePool", scope.real())
    keepdims = int(op.keepdims)
    if scope.writer.opset >= AXES_INPUT_OPSET:
        axes = scope.constant("axes", op.axes, "int64")
        return scope.node("ReduceMean", scope.real(), axes, keepdims=keepdims)
    return scope.node("ReduceMean", scope.real(), axes=list(op.axes), keepdims=keepdims)


def layer_norm(op: LayerNorm, scope: Scope) -> str:
    """LayerNormalization, along the last axis."""
    rank = len(scope.shape())
    size = scope.shape()[op.axis]
    parameters = [scope.parameter(1), scope.parameter(2)]
    vectors = [
        scope.constant(part, [default] * size if data is None else data.tolist())
        for part, data, default in zip(("gain", "shift"), parameters, (1.0, 0.0), strict=True)
    ]
    x = scope.real()
    order = [axis for axis in range(rank) if axis != op.axis] + [op.axis]
    moved = order != list(range(rank))
    if moved:
        x = scope.node("Transpose", x, part="last", perm=order)
    x = scope.node("LayerNormalization", x, *vectors, axis=-1, epsilon=op.epsilon)
    if moved:
        back = [order.index(axis) for axis in range(rank)]
        x = scope.node("Transpose", x, part="back", perm=back)
    return x


def group_norm(op: GroupNorm, scope: Scope) -> str:
    """InstanceNormalization; of groups of channels as one long channel each."""
    shape, rank = scope.shape(), len(scope.shape())
    scale, shift = scope.parameter(1), scope.parameter(2)
    channels = shape[1]
    gains = [1.0] * channels if scale is None else scale.tolist()
    shifts = [0.0] * channels if shift is None else shift.tolist()
    if op.groups == channels:
        vectors = (scope.constant("gain", gains), scope.constant("shift", shifts))
        return scope.node("InstanceNormalization", scope.real(), *vectors, epsilon=op.epsilon)
    joined = scope.constant("groups", (shape[0], op.groups, -1), "int64")
    x = scope.node("Reshape", scope.real(), joined, part="groups")
    ones = scope.constant("ones", [1.0] * op.groups)
    zeros = scope.constant("zeros", [0.0] * op.groups)
    x = scope.node("InstanceNormalization", x, ones, zeros, epsilon=op.epsilon)
    x = scope.node("Reshape", x, scope.constant("shape", shape, "int64"), part="channels")
    x = scope.node("Mul", x, scope.by_channel("gain", gains, 1, rank), part="gain")
    return scope.node("Add", x, scope.by_channel("shift", shifts, 1, rank), part="shift")
