"""Operators that only move elements or give them another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcompile.importer.builder import MAX_SIZE, Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.resize import MAX_AXIS
from qcompile.importer.operators.window import normal_axes, normal_axis
from qcompile.ops.concat import Concat
from qcompile.ops.depth_to_space import DepthToSpace
from qcompile.ops.mul import Mul
from qcompile.ops.nearest_resize import NearestResize
from qcompile.ops.reshape import Reshape
from qcompile.ops.transpose import Transpose
from qcompile.types import Shape


def convert_concat(node: Node, builder: Builder) -> None:
    """Concat of computed values, constants among them (class tokens)."""
    constants = [builder.data(node.input(index)) for index in range(len(node.inputs))]
    values = tuple(
        builder.movable(node, index)
        if data is None
        else builder.constant(node, node.inputs[index], data)
        for index, data in enumerate(constants)
    )
    axis = normal_axis(node, node.integer("axis", 0), len(builder.shape(values[0])))
    if len(values) == 1:
        builder.alias(node.output, values[0])
        return
    elements = {(builder.types[value].element, builder.is_pixels(value)) for value in values}
    if len(elements) > 1:
        node.refuse("integers joined with real numbers", "cast all inputs to float first")
    builder.move(Concat(name=node.name, inputs=values, outputs=(node.output,), axis=axis))


def convert_transpose(node: Node, builder: Builder) -> None:
    """Transpose; without `perm` the axes are reversed."""
    x = builder.movable(node)
    rank = len(builder.shape(x))
    permutation = node.integers("perm", tuple(reversed(range(rank))))
    permutation = normal_axes(node, permutation, rank)
    builder.move(
        Transpose(name=node.name, inputs=(x,), outputs=(node.output,), permutation=permutation)
    )


def convert_reshape(node: Node, builder: Builder) -> None:
    """Reshape: 0 keeps an axis (unless `allowzero`), -1 takes what is left."""
    x = builder.movable(node)
    old = builder.shape(x)
    wanted = builder.integers(node, 1, "shape")
    if wanted is None:
        node.malformed("its shape is missing")
    shape = list(wanted)
    if not node.flag("allowzero"):
        if any(size == 0 and axis >= len(old) for axis, size in enumerate(shape)):
            node.malformed(f"shape {shape} keeps an axis that {list(old)} does not have")
        shape = [old[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if any(size < -1 or size > MAX_SIZE for size in shape) or shape.count(-1) > 1:
        node.malformed(f"shape {shape} is not possible")
    if -1 in shape:
        known = math.prod(size for size in shape if size != -1)
        if known == 0 or math.prod(old) % known:
            node.malformed(f"shape {list(old)} cannot become {shape}")
        shape[shape.index(-1)] = math.prod(old) // known
    emit_reshape(node, builder, x, shape)


def convert_flatten(node: Node, builder: Builder) -> None:
    """Flatten: two axes, split before `axis`."""
    x = builder.movable(node)
    shape = builder.shape(x)
    axis = node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        node.malformed(f"axis {axis} does not exist in shape {list(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    emit_reshape(node, builder, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def convert_squeeze(node: Node, builder: Builder) -> None:
    """Squeeze: without axes, every axis of size 1 goes."""
    x = builder.movable(node)
    shape = builder.shape(x)
    given = read_axes(node, builder, since=13)
    axes = normal_axes(node, given, len(shape)) if given is not None else None
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    if any(shape[axis] != 1 for axis in axes):
        node.malformed(f"axes {list(axes)} of shape {list(shape)} are not all 1")
    emit_reshape(node, builder, x, [s for axis, s in enumerate(shape) if axis not in axes])


def convert_unsqueeze(node: Node, builder: Builder) -> None:
    """Unsqueeze: new axes of size 1."""
    x = builder.movable(node)
    given = read_axes(node, builder, since=13)
    if given is None:
        node.malformed("its axes are missing")
    rank = len(builder.shape(x)) + len(given)
    axes = normal_axes(node, given, rank)
    rest = iter(builder.shape(x))
    emit_reshape(node, builder, x, [1 if axis in axes else next(rest) for axis in range(rank)])


def convert_identity(node: Node, builder: Builder) -> None:
    """Identity, and whatever else does nothing at inference."""
    data = builder.data(node.input(0))
    if data is not None:
        builder.know(node.output, data)
    else:
        builder.alias(node.output, builder.movable(node))


def convert_dropout(node: Node, builder: Builder) -> None:
    """Dropout does nothing outside training; its mask is not supported."""
    training = builder.optional(node, 2, "training_mode") if node.opset >= 12 else None
    if training is not None and training.any():
        node.refuse("training mode", "export the model in evaluation mode (model.eval())")
    convert_identity(node, builder)


def convert_depth_to_space(node: Node, builder: Builder) -> None:
    """DepthToSpace in both modes."""
    mode = node.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        node.malformed(f"mode '{mode}' does not exist")
    builder.move(
        DepthToSpace(
            name=node.name,
            inputs=(builder.movable(node),),
            outputs=(node.output,),
            block=node.integer("blocksize", 0),
            column_major=mode == "CRD",
        )
    )


def convert_space_to_depth(node: Node, builder: Builder) -> None:
    """SpaceToDepth as Reshape, Transpose, Reshape; newer opsets have both modes."""
    x = builder.movable(node)
    shape = builder.shape(x)
    block = node.integer("blocksize", 0)
    if len(shape) != 4 or block < 1 or shape[2] % block or shape[3] % block:
        node.malformed(f"blocksize {block} does not fit an input of shape {list(shape)}")
    mode = node.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        node.malformed(f"mode '{mode}' does not exist")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    batch, channels, height, width = shape
    rows, columns = height // block, width // block
    name, blocks = builder.part(node, "blocks")
    builder.move(
        Reshape(
            name=name,
            inputs=(x,),
            outputs=(blocks,),
            shape=(batch, channels, rows, block, columns, block),
        )
    )
    name, moved = builder.part(node, "moved")
    builder.move(Transpose(name=name, inputs=(blocks,), outputs=(moved,), permutation=order))
    emit_reshape(node, builder, moved, (batch, channels * block * block, rows, columns))


def convert_expand(node: Node, builder: Builder) -> None:
    """Expand: nothing, a resize that repeats spatial positions, or a product with ones."""
    x = builder.movable(node)
    shape = builder.shape(x)
    wanted = builder.integers(node, 1, "shape")
    if wanted is None or any(not 1 <= size <= MAX_SIZE for size in wanted):
        node.malformed("its shape must be positive numbers")
    rank = max(len(shape), len(wanted))
    old = (1,) * (rank - len(shape)) + shape
    new = (1,) * (rank - len(wanted)) + wanted
    if any(a != b and 1 not in (a, b) for a, b in zip(old, new, strict=True)):
        node.malformed(f"shape {list(shape)} does not expand to {list(wanted)}")
    ones = tuple(b if a == 1 else 1 for a, b in zip(old, new, strict=True))
    if math.prod(ones) == 1:
        emit_reshape(node, builder, x, old)
        return
    if rank == len(shape) > 2 and ones[:2] == (1, 1) and max(new) <= MAX_AXIS:
        sources = tuple(
            tuple(range(a)) if a == b else (0,) * b for a, b in zip(old, new, strict=True)
        )
        builder.move(
            NearestResize(name=node.name, inputs=(x,), outputs=(node.output,), sources=sources[2:])
        )
        return
    if math.prod(ones) > 1 << 24:
        node.refuse(f"an expansion to {list(wanted)}", "use Resize, or a smaller input")
    factor = builder.constant(node, f"{node.output}.ones", np.ones(ones, np.float32))
    builder.emit(Mul(name=node.name, inputs=(builder.source(node), factor), outputs=(node.output,)))


def read_axes(node: Node, builder: Builder, since: int) -> tuple[int, ...] | None:
    """Axes from the attribute, or since an opset from the second input; None if not given."""
    if node.opset >= since:
        return builder.integers(node, 1, "axes")
    return node.integers("axes", ()) if node.has("axes") else None


def emit_reshape(node: Node, builder: Builder, x: str, shape: Sequence[int] | Shape) -> None:
    """A `Reshape` as the node's main operator; nothing if the shape stays."""
    if tuple(shape) == builder.shape(x):
        builder.alias(node.output, x)
        return
    builder.move(Reshape(name=node.name, inputs=(x,), outputs=(node.output,), shape=tuple(shape)))
