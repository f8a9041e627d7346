"""Planners of means, interpolation, norms and order operators."""

from __future__ import annotations

import math

import numpy as np

from qcompile.backends.c.context import Context, View
from qcompile.backends.c.elementwise import ROW_LOOPS, broadcast_strides
from qcompile.backends.c.epilogues import constants_type, plan_epilogue, real_constant
from qcompile.backends.c.followers import arg_max_kernel
from qcompile.backends.c.layers import image_size, plane
from qcompile.backends.c.names import float_literal
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.ops import (
    ArgMax,
    AveragePool,
    GroupNorm,
    LayerNorm,
    LinearResize,
    LinearTaps,
    NormWidths,
    ReduceMean,
    Softmax,
    SumOp,
)
from qcompile.passes.choose_kernels import sums_type
from qcompile.passes.place_tensors import Placement, channels_last, natural, split_axes
from qcompile.types import Shape

UINT64_BITS = 64


def _sum_kernel(context: Context, op: SumOp, stem: str, epilogue: Kernel) -> Kernel:
    x = context.ctype(op.inputs[0])
    return kernel(
        stem,
        [x],
        requires=[epilogue],
        suffix="_" + epilogue.function,
        x=x,
        y=context.ctype(op.output),
        sums=sums_type(op),
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )


def plan_average_pool(context: Context, step: Step, op: AveragePool) -> None:
    """Window sums, each times common / divisor (integers) or divided by its count (floats)."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    x = context.window(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    described = step.shape(
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
    sums = sums_type(op)
    counts = list(op.divisors(shape[2:], out[2:]))
    if len(counts) == 1:
        counts.insert(0, (1,))
    tables = []
    for name, divisors in zip(("row_factors", "column_factors"), counts, strict=True):
        if sums == "float":
            factors = np.asarray(divisors, np.float32)
        else:
            common = math.lcm(*divisors)
            factors = np.asarray([common // divisor for divisor in divisors])
        tables.append(step.table(name, sums, factors, Role.TABLE, "by output position"))
    epilogue = plan_epilogue(context, step, op, out[1])
    item = _sum_kernel(context, op, context.stem("average_pool"), epilogue)
    buffers = _row_buffers(step, item, sums, shape, out)
    step.calls.append(
        f"{step.use(item)}({described}, {x}, {', '.join(tables)}, &epilogue, {y}, {buffers});"
    )


def _row_buffers(step: Step, item: Kernel, sums: str, shape: Shape, out: Shape) -> str:
    """Scratch memory for the sums of a row, and of a row of the input for kernels of whole images.

    Returns:
        The arguments.
    """
    if item.template.endswith("_rows"):
        return step.scratch(sums, "sums", out[1])
    step.scratch(sums, "sums", out[1] * image_size(out)[1])
    step.scratch(sums, "line", shape[1] * image_size(shape)[1])
    return "sums, line"


def plan_reduce_mean(context: Context, step: Step, op: ReduceMean) -> None:
    """Sums over whole axes; the other axes are walked in the order of the output."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    x = context.read(step, "x", op.inputs[0])
    order = channels_last(len(out)).order
    y = context.write_as(step, "y", op.output, Placement(order))
    source = context.strides(op.inputs[0])
    kept = (
        list(range(len(shape)))
        if op.keepdims
        else [axis for axis in range(len(shape)) if axis not in op.axes]
    )
    steps = [0 if axis in op.axes else source[axis] for axis in kept]
    outer = View(
        tuple(out[axis] for axis in order[:-1]), (tuple(steps[axis] for axis in order[:-1]),)
    )
    inner = View(tuple(shape[axis] for axis in op.axes), (tuple(source[axis] for axis in op.axes),))
    outer, inner = outer.collapsed().padded(ROW_LOOPS), inner.collapsed().padded(ROW_LOOPS)
    channels = out[order[-1]] if out else 1
    sums = sums_type(op)
    described = step.shape(
        "mean_shape",
        "shape",
        size=outer.sizes,
        step=outer.strides[0],
        reduced=inner.sizes,
        reduced_step=inner.strides[0],
        channels=channels,
        channel_step=steps[order[-1]] if out else 0,
    )
    epilogue = plan_epilogue(context, step, op, channels)
    step.scratch(sums, "sums", channels)
    count = f"{float_literal(float(op.count(shape)))}, " if sums == "float" else ""
    item = _sum_kernel(context, op, "reduce_mean", epilogue)
    step.calls.append(f"{step.use(item)}({described}, {x}, {count}&epilogue, {y}, sums);")


def plan_linear_resize(context: Context, step: Step, op: LinearResize) -> None:
    """Four taps for each output pixel, with integer weights (floats: real ones)."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    x = context.window(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    sums = sums_type(op)
    described = step.shape(
        "resize_shape",
        "shape",
        width=image_size(shape)[1],
        out_size=image_size(out),
        channels=shape[1],
    )
    tables = []
    axes = (LinearTaps((0,), (0,), (op.taps[0].weights[0] * 0,)), *op.taps)[-2:]
    for name, taps in zip(("rows", "columns"), axes, strict=True):
        pairs = np.stack([taps.first, taps.second], axis=1)
        tables.append(
            step.table(name, "int32_t", pairs, Role.TABLE, "the two inputs of each output")
        )
        if sums == "float":
            second = np.asarray([float(weight) for weight in taps.weights], np.float32)
            weights = np.stack([np.float32(1) - second, second], axis=1)
        else:
            weights = np.asarray(taps.integer_weights())
        tables.append(step.table(f"{name}_weights", sums, weights, Role.TABLE, "and their weights"))
    epilogue = plan_epilogue(context, step, op, out[1])
    item = _sum_kernel(context, op, context.stem("linear_resize"), epilogue)
    buffers = _row_buffers(step, item, sums, shape, out)
    step.calls.append(
        f"{step.use(item)}({described}, {x}, {', '.join(tables)}, &epilogue, {y}, {buffers});"
    )


def plan_group_norm(context: Context, step: Step, op: GroupNorm) -> None:
    """Mean and deviation of each group, in integers of stated widths (floats: in double)."""
    shape = context.type(op.inputs[0]).shape
    x = context.read_as(step, "x", op.inputs[0], channels_last(len(shape)))
    y = context.write_as(step, "y", op.output, channels_last(len(shape)))
    sums = sums_type(op)
    channels = shape[1]
    pixels = context.type(op.inputs[0]).size // channels
    fields = {"pixels": pixels, "channels": channels, "groups": op.groups}
    if op.widths is not None and sums != "float":
        fields |= _width_fields(op.widths)
        described = step.shape("group_norm_shape", "shape", **fields)
        extra = f"UINT64_C({op.widths.epsilon}), "
    else:
        described = step.shape("group_norm_float_shape", "shape", **fields)
        extra = _float_parameters(context, step, op, channels)
    epilogue = plan_epilogue(context, step, op, channels)
    step.scratch(sums, "sums", channels // op.groups)
    item = _norm_kernel(context, op, "group_norm", epilogue)
    step.calls.append(f"{step.use(item)}({described}, {x}, {extra}&epilogue, {y}, sums);")


def plan_layer_norm(context: Context, step: Step, op: LayerNorm) -> None:
    """Mean and deviation of each row, in integers of stated widths (floats: in double)."""
    shape = context.type(op.inputs[0]).shape
    order = (*(axis for axis in range(len(shape)) if axis != op.axis), op.axis)
    x = context.read_as(step, "x", op.inputs[0], Placement(order))
    y = context.write_as(step, "y", op.output, Placement(order))
    sums, width = sums_type(op), shape[op.axis]
    fields = {"rows": context.type(op.inputs[0]).size // width, "width": width}
    if op.widths is not None and sums != "float":
        fields |= _width_fields(op.widths)
        described = step.shape("layer_norm_shape", "shape", **fields)
        extra = f"UINT64_C({op.widths.epsilon}), "
    else:
        described = step.shape("layer_norm_float_shape", "shape", **fields)
        extra = _float_parameters(context, step, op, width)
    epilogue = plan_epilogue(context, step, op, width)
    step.scratch(sums, "sums", width)
    item = _norm_kernel(context, op, "layer_norm", epilogue)
    step.calls.append(f"{step.use(item)}({described}, {x}, {extra}&epilogue, {y}, sums);")


def _width_fields(widths: NormWidths) -> dict[str, int]:
    return {
        "root_bits": widths.root_bits,
        "inverse_bits": widths.inverse_bits,
        "drop_bits": widths.drop_bits,
    }


def _float_parameters(
    context: Context, step: Step, op: GroupNorm | LayerNorm, channels: int
) -> str:
    """Arguments of a norm in an island: epsilon, gain and shift."""
    gains = real_constant(context, op.inputs[1]) if len(op.inputs) > 1 else np.ones(channels)
    shifts = real_constant(context, op.inputs[2]) if len(op.inputs) > 2 else np.zeros(channels)
    extra = f"{op.epsilon!r}, "
    for name, data in (("gain", gains), ("offset", shifts)):
        extra += step.table(name, "float", data, Role.EPILOGUE) + ", "
    return extra


def _norm_kernel(
    context: Context, op: GroupNorm | LayerNorm, stem: str, epilogue: Kernel
) -> Kernel:
    """`stem`, or `stem`_float in an island."""
    sums, x_type = sums_type(op), context.ctype(op.inputs[0])
    requires = [epilogue]
    if sums != "float":
        shift = kernel("shift_floor", ["int64_t"], shared=True, type="int64_t")
        requires = [shift, kernel("square_root", shared=True), epilogue]
    return kernel(
        f"{stem}_float" if sums == "float" else stem,
        [x_type],
        requires=requires,
        suffix="_" + epilogue.function,
        needs_math=sums == "float",
        x=x_type,
        y=context.ctype(op.output),
        sums=sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )


def plan_softmax(context: Context, step: Step, op: Softmax) -> None:
    """Exponentials by table and one rounded division an element (floats: expf)."""
    kind = context.type(op.inputs[0])
    placement = channels_last(kind.rank)
    x = context.read_as(step, "x", op.inputs[0], placement)
    y = context.write_as(step, "y", op.output, placement)
    outer, size, inner = split_axes(kind.shape, op.axis, placement)
    masked = len(op.inputs) > 1
    fields = {"outer": outer, "size": size, "inner": inner}
    mask = ""
    if masked:
        mask, fields["mask_step"] = _mask(context, step, op, placement)
    described = step.shape("masked_axis_shape" if masked else "axis_shape", "shape", **fields)
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    suffix = "_masked" if masked else ""
    if y_type == "float":
        item = kernel("softmax_float", needs_math=True, suffix=suffix, masked=masked)
        step.calls.append(f"{step.use(item)}({described}, {x}, {mask}{y});")
        return
    table = step.table("powers", "int32_t", op.table, Role.TABLE, "2**15 exp(-difference * scale)")
    largest = op.table[0] * (op.levels + size)
    wide = "uint32_t" if largest < 1 << 32 else "int64_t"
    item = kernel(
        "softmax",
        [x_type, y_type, wide],
        suffix=suffix,
        x=x_type,
        y=y_type,
        wide=wide,
        masked=masked,
    )
    step.calls.append(f"{step.use(item)}({described}, {x}, {mask}{table}, {op.levels}, {y});")


def _mask(context: Context, step: Step, op: Softmax, placement: Placement) -> tuple[str, int]:
    """Arguments for a mask: its bytes, and where those of each row begin. Beside them the distance
    of neighbours in a row."""
    shape, data = context.type(op.inputs[0]).shape, context.graph.constants[op.inputs[1]]
    strides = broadcast_strides(natural(data.ndim).strides(data.shape), data.shape, shape)
    rows = [axis for axis in placement.order if axis != op.axis]
    places = np.zeros([shape[axis] for axis in rows], np.int64)
    for position, axis in enumerate(rows):
        along = np.arange(shape[axis]) * strides[axis]
        places += along.reshape([-1 if i == position else 1 for i in range(len(rows))])
    mask = step.table("mask", "uint8_t", (data != 0).astype(np.uint8), Role.TABLE, "takes part")
    table = step.table("places", "int32_t", places, Role.TABLE, "where each row's mask begins")
    return f"{mask}, {table}, ", strides[op.axis]


def plan_arg_max(context: Context, step: Step, op: ArgMax) -> None:
    """The index of the largest element; the output lies in the order of the remaining axes."""
    kind = context.type(op.inputs[0])
    placement = channels_last(kind.rank)
    x = context.read_as(step, "x", op.inputs[0], placement)
    remaining = [axis for axis in placement.order if axis != op.axis]
    if op.keepdims:
        order = (*remaining, op.axis)
    else:
        order = tuple(axis - (1 if axis > op.axis else 0) for axis in remaining)
    y = context.write_as(step, "y", op.output, Placement(order))
    outer, size, inner = split_axes(kind.shape, op.axis, placement)
    described = step.shape("arg_max_shape", "shape", outer=outer, size=size, inner=inner)
    item = arg_max_kernel(op, context.ctype(op.inputs[0]), context.ctype(op.output))
    step.calls.append(f"{step.use(item)}({described}, {x}, 0, 1, {y});")
