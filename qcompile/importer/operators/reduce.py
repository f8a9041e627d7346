"""ReduceMean, ReduceSum, Softmax and ArgMax."""

from __future__ import annotations

import math

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.layout import read_axes
from qcompile.importer.operators.window import normal_axes, normal_axis
from qcompile.ops.activation import Activation
from qcompile.ops.arg_max import ArgMax
from qcompile.ops.reduce_mean import ReduceMean
from qcompile.ops.rescale import Rescale
from qcompile.ops.reshape import Reshape
from qcompile.ops.softmax import Softmax
from qcompile.types import IntType, Range


def convert_reduce_mean(node: Node, builder: Builder) -> None:
    """ReduceMean; without axes over all of them."""
    x = builder.source(node)
    rank = len(builder.shape(x))
    axes = read_axes(node, builder, since=18) or ()
    if not axes and node.flag("noop_with_empty_axes"):
        builder.alias(node.output, x)
        return
    chosen = normal_axes(node, axes, rank) or tuple(range(rank))
    builder.emit(
        ReduceMean(
            name=node.name,
            inputs=(x,),
            outputs=(node.output,),
            axes=tuple(sorted(chosen)),
            keepdims=node.flag("keepdims", True),
        )
    )


def convert_reduce_sum(node: Node, builder: Builder) -> None:
    """ReduceSum: the mean times the number of elements; without axes over all of them."""
    x = builder.source(node)
    shape = builder.shape(x)
    axes = read_axes(node, builder, since=13) or ()
    if not axes and node.flag("noop_with_empty_axes"):
        builder.alias(node.output, x)
        return
    chosen = tuple(sorted(normal_axes(node, axes, len(shape)) or range(len(shape))))
    emit_sum(node, builder, x, chosen, node.flag("keepdims", True), (node.name, node.output))


def emit_sum(
    node: Node,
    builder: Builder,
    x: str,
    axes: tuple[int, ...],
    keepdims: bool,
    names: tuple[str, str],
) -> None:
    """The sum over `axes` as an operator and a value of these names."""
    part, mean = builder.part(node, "mean")
    builder.emit(ReduceMean(name=part, inputs=(x,), outputs=(mean,), axes=axes, keepdims=keepdims))
    count = math.prod(builder.shape(x)[axis] for axis in axes)
    gain = Activation(gain=(float(count),))
    builder.emit(Rescale(name=names[0], inputs=(mean,), outputs=(names[1],), activation=gain))


def convert_softmax(node: Node, builder: Builder) -> None:
    """Softmax; before opset 13 it runs over all axes from `axis` on, taken as one."""
    x = builder.source(node)
    shape = builder.shape(x)
    if node.opset >= 13:
        axis = normal_axis(node, node.integer("axis", -1), len(shape))
        _emit_softmax(node, builder, x, axis)
        return
    axis = normal_axis(node, node.integer("axis", 1), len(shape))
    long = [index for index in range(axis, len(shape)) if shape[index] > 1]
    if len(long) <= 1:
        _emit_softmax(node, builder, x, long[0] if long else len(shape) - 1)
        return
    name, flat = builder.part(node, "flat")
    builder.emit(
        Reshape(
            name=name,
            inputs=(x,),
            outputs=(flat,),
            shape=(*shape[:axis], math.prod(shape[axis:])),
        )
    )
    name, soft = builder.part(node, "softmax")
    builder.emit(Softmax(name=name, inputs=(flat,), outputs=(soft,), axis=axis))
    builder.emit(Reshape(name=node.name, inputs=(soft,), outputs=(node.output,), shape=shape))


def convert_arg_max(node: Node, builder: Builder) -> None:
    """ArgMax: the output is the smallest unsigned integer type."""
    x = builder.source(node)
    shape = builder.shape(x)
    axis = normal_axis(node, node.integer("axis", 0), len(shape))
    builder.emit(
        ArgMax(
            name=node.name,
            inputs=(x,),
            outputs=(node.output,),
            axis=axis,
            keepdims=node.flag("keepdims", True),
            last=node.flag("select_last_index"),
        ),
        IntType.holding(Range(0, shape[axis] - 1)),
    )


def _emit_softmax(node: Node, builder: Builder, x: str, axis: int) -> None:
    builder.emit(Softmax(name=node.name, inputs=(x,), outputs=(node.output,), axis=axis))
