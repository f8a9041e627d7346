"""Planners of the operators that copy or select codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.context import VIEW_RANK, Context, View, copy, order_view
from qcompile.backends.c.elementwise import broadcast_strides
from qcompile.backends.c.followers import pool_kernel
from qcompile.backends.c.layers import image_size, plane
from qcompile.backends.c.names import float_literal, integer_literal
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.ops import (
    Concat,
    DepthToSpace,
    Gather,
    MaskedFill,
    MaxPool,
    MaxPoolIndex,
    MaxUnpool,
    NearestResize,
    Pad,
    PadMode,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.passes.place_tensors import channels_last, natural, split_axes
from qcompile.types import IntType, Shape


def plan_max_pool(context: Context, step: Step, op: MaxPool) -> None:
    """Maximum over the positions of a window that lie inside the input."""
    kind, out = context.graph.types[op.inputs[0]], context.graph.types[op.output].shape
    x = context.window(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    described = _pool_shape(step, op, kind.shape, out)
    ctype = context.ctype(op.inputs[0])
    window, stride = plane(op.kernel, 1), plane(op.strides, 1)
    size, out_size = image_size(kind.shape), image_size(out)
    inside = all(n * k <= total for n, k, total in zip(out_size, window, size, strict=True))
    stem = context.stem("max_pool")
    if (
        stem == "max_pool"
        and isinstance(kind.element, IntType)
        and window == stride
        and inside
        and not any((*op.pads_begin, *(d - 1 for d in op.dilations)))
    ):
        item = pool_kernel(ctype)
        step.calls.append(f"{step.use(item)}({described}, {x}, 0, {out_size[0]}, {y});")
        return
    literal = "-INFINITY"
    if isinstance(kind.element, IntType):
        literal = integer_literal(kind.element.low, ctype)
    item = kernel(stem, [ctype], type=ctype, needs_math=ctype == "float")
    step.calls.append(f"{step.use(item)}({described}, {x}, {literal}, {y});")


def plan_max_pool_index(context: Context, step: Step, op: MaxPoolIndex) -> None:
    """The first of equal maxima counts."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    x = context.window(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    described = _pool_shape(step, op, shape, out)
    types = [context.ctype(op.inputs[0]), context.ctype(op.output)]
    item = kernel("max_pool_index", types, x=types[0], y=types[1])
    best = step.scratch(types[0], "best", shape[1])
    step.calls.append(f"{step.use(item)}({described}, {x}, {best}, {y});")


def plan_max_unpool(context: Context, step: Step, op: MaxUnpool) -> None:
    """Zeros, then each element to its place."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    x, indices = (
        context.window(step, name, value)
        for name, value in zip(("x", "indices"), op.inputs, strict=True)
    )
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    described = _pool_shape(step, op, shape, out)
    types = [context.ctype(value) for value in op.inputs]
    item = kernel("max_unpool", types, type=types[0], index=types[1])
    step.calls.append(f"{step.use(item)}({described}, {x}, {indices}, {y});")


def _pool_shape(
    step: Step, op: MaxPool | MaxPoolIndex | MaxUnpool, shape: Shape, out: Shape
) -> str:
    return step.shape(
        "pool_shape",
        "shape",
        size=image_size(shape),
        out_size=image_size(out),
        kernel=plane(op.kernel, 1),
        stride=plane(op.strides, 1),
        pad=plane(op.pads_begin, 0),
        dilation=plane(op.dilations, 1),
        channels=shape[1],
    )


def plan_nearest_resize(context: Context, step: Step, op: NearestResize) -> None:
    """Every output position copies all channels of one input position."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    x = context.window(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    described = step.shape(
        "nearest_shape",
        "shape",
        width=image_size(shape)[1],
        out_size=image_size(out),
        channels=shape[1],
    )
    rows = op.sources[0] if len(op.sources) == 2 else (0,)
    tables = [
        step.table("rows", "int32_t", rows, Role.TABLE, "input row of each output row"),
        step.table("columns", "int32_t", op.sources[-1], Role.TABLE, "likewise for columns"),
    ]
    ctype = context.ctype(op.inputs[0])
    item = kernel(context.stem("nearest_resize"), [ctype], type=ctype)
    step.calls.append(f"{step.use(item)}({described}, {x}, {', '.join(tables)}, {y});")


def plan_concat(context: Context, step: Step, op: Concat) -> None:
    """Each input is copied into its part of the output."""
    y = context.write(step, "y", op.output)
    strides = context.strides(op.output)
    order = context.placements[op.output].order
    start = 0
    for index, value in enumerate(op.inputs):
        shape = context.type(value).shape
        x = context.read(step, f"x{index}", value)
        source = context.strides(value)
        view = View(
            tuple(shape[axis] for axis in order),
            (tuple(source[axis] for axis in order), tuple(strides[axis] for axis in order)),
        )
        place = (0, start * strides[op.axis])
        ctype = context.ctype(op.output)
        copy(step, ctype, x, y, view, step.calls, place, context.ctype(value))
        start += shape[op.axis]


def plan_slice(context: Context, step: Step, op: Slice) -> None:
    """A strided part of the input."""
    source = context.strides(op.inputs[0])
    steps = [stride * step for stride, step in zip(source, op.steps, strict=True)]
    start = sum(stride * start for stride, start in zip(source, op.starts, strict=True))
    _strided(context, step, op.inputs[0], op.output, steps, start)


def plan_gather(context: Context, step: Step, op: Gather) -> None:
    """Blocks of the axes inside of the gathered one, in the placement of the output."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    placement = context.placements[op.output]
    x = context.read_as(step, "x", op.inputs[0], placement)
    y = context.write(step, "y", op.output)
    outer, size, inner = split_axes(shape, op.axis, placement)
    described = step.shape(
        "take_shape", "shape", outer=outer, size=size, inner=inner, count=out[op.axis]
    )
    indices = step.table("indices", "int32_t", op.indices, Role.TABLE, "input of each output")
    ctype = context.ctype(op.output)
    item = kernel("take", [ctype], type=ctype)
    step.calls.append(f"{step.use(item)}({described}, {x}, {indices}, {y});")


def plan_masked_fill(context: Context, step: Step, op: MaskedFill) -> None:
    """A walk over the output, the mask beside it."""
    out = context.type(op.output)
    data = context.graph.constants[op.inputs[1]]
    order = context.placements[op.output].order
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    source = context.strides(op.inputs[0])
    beside = broadcast_strides(natural(data.ndim).strides(data.shape), data.shape, out.shape)
    view = View(
        tuple(out.shape[axis] for axis in order),
        (tuple(source[axis] for axis in order), tuple(beside[axis] for axis in order)),
    )
    walk = view.collapsed().padded(VIEW_RANK)
    described = step.shape(
        "masked_shape", "shape", size=walk.sizes, x=walk.strides[0], mask=walk.strides[1]
    )
    mask = step.table("mask", "uint8_t", (data != 0).astype(np.uint8), Role.TABLE)
    ctype = context.ctype(op.output)
    literal = float_literal(op.value) if out.is_float else integer_literal(op.code or 0, ctype)
    item = kernel("masked_fill", [ctype], type=ctype)
    step.calls.append(f"{step.use(item)}({described}, {x}, {mask}, {literal}, {y});")


def plan_transpose(context: Context, step: Step, op: Transpose) -> None:
    """The input's strides in another order."""
    source = context.strides(op.inputs[0])
    _strided(context, step, op.inputs[0], op.output, [source[axis] for axis in op.permutation], 0)


def _strided(
    context: Context, step: Step, value: str, output: str, source: Sequence[int], start: int
) -> None:
    """Output element i comes from input element start + sum(i * source)."""
    shape, order = context.type(output).shape, context.placements[output].order
    target = context.strides(output)
    x, y = context.read(step, "x", value), context.write(step, "y", output)
    view = View(
        tuple(shape[axis] for axis in order),
        (tuple(source[axis] for axis in order), tuple(target[axis] for axis in order)),
    )
    copy(step, context.ctype(output), x, y, view, step.calls, (start, 0))


def plan_pad(context: Context, step: Step, op: Pad) -> None:
    """The border is filled first (constant) or copied from the output itself (edge, reflection)."""
    kind, out = context.type(op.inputs[0]), context.type(op.output)
    ctype, order = context.ctype(op.output), context.placements[op.output].order
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    source, target = context.strides(op.inputs[0]), context.strides(op.output)
    if op.mode is PadMode.CONSTANT:
        item = kernel("pad", [ctype], type=ctype)
        literal = float_literal(op.value) if out.is_float else integer_literal(op.code or 0, ctype)
        step.calls.append(f"{step.use(item)}({y}, {out.size}, {literal});")
    view = View(
        tuple(kind.shape[axis] for axis in order),
        (tuple(source[axis] for axis in order), tuple(target[axis] for axis in order)),
    )
    begin = sum(pad * stride for pad, stride in zip(op.begins, target, strict=True))
    copy(step, ctype, x, y, view, step.calls, (0, begin))
    if op.mode is PadMode.CONSTANT:
        return
    done = list(kind.shape)
    base = list(op.begins)
    for axis, (before, after) in enumerate(zip(op.begins, op.ends, strict=True)):
        reflect = op.mode is PadMode.REFLECT
        last = before + kind.shape[axis] - 1
        # Written away from the edge; reflection reads towards the inside, edge repeats.
        sides = ((before, before, -1), (after, last, 1))
        for count, edge, direction in sides:
            if count == 0:
                continue
            sizes = [count if a == axis else done[a] for a in range(kind.rank)]
            reading = [
                (-direction * s if reflect else 0) if a == axis else s for a, s in enumerate(target)
            ]
            writing = [direction * s if a == axis else s for a, s in enumerate(target)]
            origin = sum(base[a] * target[a] for a in range(kind.rank) if a != axis)
            read_from = origin + (edge - direction * (1 if reflect else 0)) * target[axis]
            write_to = origin + (edge + direction) * target[axis]
            walk = View(
                tuple(sizes[a] for a in order),
                (tuple(reading[a] for a in order), tuple(writing[a] for a in order)),
            )
            copy(step, ctype, y, y, walk, step.calls, (read_from, write_to))
        done[axis] = out.shape[axis]
        base[axis] = 0


def plan_reshape(context: Context, step: Step, op: Reshape) -> None:
    """Both sides in the model's own order are the same bytes; other placements are copied over."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    ctype = context.ctype(op.output)
    before, after = context.placements[op.inputs[0]], context.placements[op.output]
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    first = order_view(shape, before, natural(len(shape)))
    second = order_view(out, natural(len(out)), after)
    if before.same_memory(natural(len(shape)), shape):
        copy(step, ctype, x, y, second, step.calls)
    elif after.same_memory(natural(len(out)), out):
        copy(step, ctype, x, y, first, step.calls)
    else:
        between = step.scratch(ctype, "row_major", context.type(op.output).size)
        copy(step, ctype, x, between, first, step.calls)
        copy(step, ctype, between, y, second, step.calls)


def plan_depth_to_space(context: Context, step: Step, op: DepthToSpace) -> None:
    """Six nested loops: channel, block row and column, and the pixel."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    source, target = context.strides(op.inputs[0]), context.strides(op.output)
    block, channels = op.block, out[1]
    channel = source[1]
    row, column, depth = (
        (block * channel, channel, block * block * channel)
        if op.column_major
        else (block * channels * channel, channels * channel, channel)
    )
    view = View(
        (shape[2], block, shape[3], block, channels),
        (
            (source[2], row, source[3], column, depth),
            (block * target[2], target[2], block * target[3], target[3], target[1]),
        ),
    )
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    copy(step, context.ctype(op.output), x, y, view, step.calls)
