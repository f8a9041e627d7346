"""Planners of the operators that combine or transform tensors element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.context import Context, View
from qcompile.backends.c.epilogues import constants_type, is_flat, plan_epilogue, real_constant
from qcompile.backends.c.names import float_literal, integer_literal
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.graph import Op
from qcompile.numerics import clamp
from qcompile.ops import (
    Add,
    Affine,
    Dequantize,
    Div,
    Elu,
    Gelu,
    HardSigmoid,
    Lookup,
    Mul,
    Pointwise,
    Quantize,
    Rescale,
    Steps,
    SumOp,
    TernaryTanh,
    Threshold,
)
from qcompile.passes.choose_kernels import sums_type
from qcompile.passes.place_tensors import Placement, channels_last
from qcompile.types import Shape

ROW_LOOPS = 4
"""Outer loops of the row-wise kernels."""
LONGEST_ROW = 2048
"""Rows of sums stay in the first-level cache."""
SHORT_ROW = 256
"""The same where memory is scarce."""
LANES = 16
"""Sums in the widest vector."""


def longest_row(context: Context) -> int:
    """Sums that are computed before their epilogue."""
    return LONGEST_ROW if context.levels else SHORT_ROW


def repeats(context: Context, op: SumOp, pixels: int, channels: int) -> int:
    """How many pixels count as one with several times the channels, because few would leave most
    of a vector empty: their constants are stored repeatedly.
    """
    if not context.levels or channels >= LANES or op.epilogue is None:
        return 1
    least = math.lcm(channels, LANES) // channels
    return least if pixels % least == 0 else 1


def broadcast_strides(strides: Sequence[int], shape: Shape, out: Shape) -> tuple[int, ...]:
    """Strides of a tensor along the axes of the shape it is broadcast to."""
    missing = len(out) - len(shape)
    return (0,) * missing + tuple(
        0 if size == 1 else stride for size, stride in zip(shape, strides, strict=True)
    )


def row_view(
    context: Context, op: SumOp, values: Sequence[str], placement: Placement
) -> tuple[View, View]:
    """Walks of the tensors `values` over the output of `op`: (outer loops, the runs of one row).

    A run goes along the channels, or further where all channels are alike. Both walks of tensors
    that lie as the output does are empty.
    """
    out = context.type(op.output).shape
    order = placement.order
    strides = [
        broadcast_strides(context.strides(value), context.type(value).shape, out)
        for value in values
    ]
    sizes = tuple(out[axis] for axis in order)
    ordered = tuple(tuple(step[axis] for axis in order) for step in strides)
    whole = View(sizes, ordered).collapsed()
    if len(whole.sizes) <= 1 and all(step in ((), (1,)) for step in whole.strides):
        return View((), ()), View((), ())
    longest = longest_row(context)
    if is_flat(op):
        whole = View(sizes, ordered).collapsed(longest)
        run = View(whole.sizes[-1:], tuple(step[-1:] for step in whole.strides))
        outer = View(whole.sizes[:-1], tuple(step[:-1] for step in whole.strides))
    else:
        run = View(sizes[-1:], tuple(step[-1:] for step in ordered))
        outer = View(sizes[:-1], tuple(step[:-1] for step in ordered)).collapsed()
    if not outer.sizes:
        outer = outer.padded(1)
    # Some of the innermost loop's runs make a row.
    last = outer.sizes[-1]
    fitting = max(1, longest // run.sizes[0])
    runs = max(n for n in range(1, min(last, fitting) + 1) if last % n == 0)
    row = View(
        (runs, *run.sizes),
        tuple((a[-1], *b) for a, b in zip(outer.strides, run.strides, strict=True)),
    )
    outer = View(
        (*outer.sizes[:-1], last // runs),
        tuple((*step[:-1], step[-1] * runs) for step in outer.strides),
    )
    return outer.padded(ROW_LOOPS), row


def _overwritable(context: Context, value: str, output: str) -> bool:
    """The output may lie where `value` does: its elements are read in the order in which those of
    the output are written, and none of those reaches beyond what was read."""
    source, target = context.type(value), context.type(output)
    return (
        value in context.graph.producers
        and source.shape == target.shape
        and context.strides(value) == context.strides(output)
        and source.storage_bytes >= target.storage_bytes
    )


def plan_sum(context: Context, step: Step, op: Add | Mul | Div) -> None:
    """Two tensors with broadcasting; float islands share the loops."""
    out = context.type(op.output)
    placement = channels_last(out.rank)
    real = op.epilogue is None
    values = list(op.inputs[:2])
    names = []
    for name, value in zip("ab", values, strict=True):
        if real and context.graph.is_constant(value):
            data = real_constant(context, value)
            names.append(step.table(f"constant_{name}", "float", data, Role.WEIGHTS))
        else:
            names.append(context.read(step, name, value))
    y = context.write_as(step, "y", op.output, placement)
    step.in_place += [value for value in values if _overwritable(context, value, op.output)]
    outer, row = row_view(context, op, values, placement)
    sums = sums_type(op)
    channels = out.shape[placement.order[-1]] if out.rank else 1
    dense = not row.sizes
    if dense:
        walk, channels, length = _dense_rows(context, op, out.size, channels, is_flat(op))
    else:
        runs, run = row.sizes
        length = runs * run
        fields: dict[str, int | Sequence[int]] = {
            "size": outer.sizes,
            "a": outer.strides[0],
            "b": outer.strides[1],
            "runs": runs,
            "a_run": row.strides[0][0],
            "b_run": row.strides[1][0],
            "run": run,
            "a_step": row.strides[0][1],
            "b_step": row.strides[1][1],
        }
        walk = step.shape("pair_shape", "shape", **fields)
    epilogue = plan_epilogue(context, step, op, channels)
    types = [
        "float" if real and context.graph.is_constant(value) else context.ctype(value)
        for value in values
    ]
    step.scratch(sums, "sums", length)
    stem = op.kind.lower()
    quotient = [kernel("floor_ratio", shared=True)] if isinstance(op, Div) else []
    item = kernel(
        stem,
        types,
        requires=[epilogue, *quotient],
        suffix=("_dense_" if dense else "_") + epilogue.function,
        a=types[0],
        b=types[1],
        y=context.ctype(op.output),
        sums=sums,
        dense=dense,
        flat=is_flat(op),
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )
    extra = ""
    if isinstance(op, Add):
        weights = [
            float_literal(float(w)) if real else integer_literal(w, sums) for w in op.weights
        ]
        extra = f"{weights[0]}, {weights[1]}, "
    elif isinstance(op, Div) and not real:
        extra = f"{op.fraction_bits}, "
    step.calls.append(
        f"{step.use(item)}({walk}, {names[0]}, {names[1]}, {extra}&epilogue, {y}, sums);"
    )


def _dense_rows(
    context: Context, op: SumOp, size: int, channels: int, alike: bool
) -> tuple[str, int, int]:
    """How elements that lie side by side are cut into rows of whole pixels.

    Args:
        context: the graph and decisions.
        op: what is planned.
        size: all elements.
        channels: of a pixel.
        alike: all channels are, so that every element may count as a pixel.

    Returns:
        (the kernel's arguments: pixels, channels and pixels in a row; channels; sums in a row).
    """
    pixels = size // channels
    if alike:
        pixels, channels = size, 1
    else:
        together = repeats(context, op, pixels, channels)
        pixels, channels = pixels // together, channels * together
    row = max(1, min(pixels, longest_row(context) // channels))
    return f"{pixels}, {channels}, {row}", channels, row * channels


def plan_affine(context: Context, step: Step, op: Affine) -> None:
    """A factor for each channel."""
    kind = context.type(op.inputs[0])
    placement = channels_last(kind.rank)
    x = context.read_as(step, "x", op.inputs[0], placement)
    y = context.write_as(step, "y", op.output, placement)
    step.in_place += [op.inputs[0]] if _overwritable(context, op.inputs[0], op.output) else []
    channels = kind.shape[1]
    sums = sums_type(op)
    if op.epilogue is None:
        data = real_constant(context, op.inputs[1])
    else:
        data = context.graph.constants[op.inputs[1]]
    walk, channels, length = _dense_rows(context, op, kind.size, channels, False)
    data = np.tile(data.reshape(-1), channels // data.size)
    scale = step.table("factors", sums, data, Role.WEIGHTS)
    shift = ""
    if op.epilogue is None and len(op.inputs) > 2:
        name = step.table("offsets", "float", real_constant(context, op.inputs[2]), Role.EPILOGUE)
        shift = f", {name}"
    epilogue = plan_epilogue(context, step, op, channels)
    step.scratch(sums, "sums", length)
    item = kernel(
        "affine",
        [context.ctype(op.inputs[0])],
        requires=[epilogue],
        suffix="_" + epilogue.function + ("_offset" if shift else ""),
        x=context.ctype(op.inputs[0]),
        y=context.ctype(op.output),
        sums=sums,
        offset=bool(shift),
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )
    step.calls.append(f"{step.use(item)}({walk}, {x}, {scale}{shift}, &epilogue, {y}, sums);")


def plan_rescale(context: Context, step: Step, op: Rescale) -> None:
    """The sum is the input itself."""
    kind = context.type(op.inputs[0])
    placement = channels_last(kind.rank)
    x = context.read_as(step, "x", op.inputs[0], placement)
    y = context.write_as(step, "y", op.output, placement)
    step.in_place += [op.inputs[0]] if _overwritable(context, op.inputs[0], op.output) else []
    channels = kind.shape[op.channel_axis(kind.rank)] if kind.rank else 1
    sums = sums_type(op)
    walk, channels, length = _dense_rows(context, op, kind.size, channels, is_flat(op))
    epilogue = plan_epilogue(context, step, op, channels)
    step.scratch(sums, "sums", length)
    item = kernel(
        "rescale",
        [context.ctype(op.inputs[0])],
        requires=[epilogue],
        suffix="_" + epilogue.function,
        x=context.ctype(op.inputs[0]),
        y=context.ctype(op.output),
        sums=sums,
        flat=is_flat(op),
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )
    step.calls.append(f"{step.use(item)}({walk}, {x}, &epilogue, {y}, sums);")


def boundary_shape(context: Context, step: Step, op: Op, per_channel: bool) -> str:
    """Descriptor of a walk over input and output in their own placements.

    With `per_channel` the outermost loop runs over axis 1, else everything is one channel.
    """
    out = context.type(op.output).shape
    axis = 1 if per_channel and len(out) > 1 else None
    order = [a for a in context.placements[op.output].order if a != axis]
    source, target = context.strides(op.inputs[0]), context.strides(op.output)
    view = View(
        tuple(out[a] for a in order),
        (tuple(source[a] for a in order), tuple(target[a] for a in order)),
    )
    flat = view.collapsed().padded(ROW_LOOPS)
    return step.shape(
        "boundary_shape",
        "shape",
        channels=1 if axis is None else out[axis],
        source_channel=0 if axis is None else source[axis],
        target_channel=0 if axis is None else target[axis],
        size=flat.sizes,
        source=flat.strides[0],
        target=flat.strides[1],
    )


def plan_lookup(context: Context, step: Step, op: Lookup) -> None:
    """One table for all elements, or one for each channel."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    if context.type(op.inputs[0]).storage_bytes == context.type(op.output).storage_bytes:
        # A table for each channel is walked channel by channel: elements must stay in place.
        step.in_place += [op.inputs[0]] if _overwritable(context, op.inputs[0], op.output) else []
    data = context.graph.constants[op.inputs[1]]
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    table = step.table("table", y_type, data, Role.TABLE, "output code of each input code")
    entries = data.shape[-1] if data.ndim == 2 else 0
    described = boundary_shape(context, step, op, entries > 0)
    item = kernel("lookup", [x_type, y_type], x=x_type, y=y_type)
    step.calls.append(f"{step.use(item)}({described}, {x}, {table}, {entries}, {op.lowest}, {y});")


def plan_quantize(context: Context, step: Step, op: Quantize) -> None:
    """Float to codes, in the named steps of the contract's rule 9."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    out = context.type(op.output)
    per_channel = max(len(op.inverse), len(op.offset)) > 1
    channels = out.shape[1] if per_channel and out.rank > 1 else 1
    tables = []
    for name, values in (("inverse", op.inverse), ("offset", op.offset)):
        each = values * channels if len(values) == 1 else values
        tables.append(step.table(name, "double", np.asarray(each, np.float64), Role.TABLE))
    described = boundary_shape(context, step, op, per_channel)
    ctype = context.ctype(op.output)
    nothing = clamp(0, op.low, op.high, lambda condition, yes, no: yes if condition else no)
    item = kernel("quantize", [ctype], type=ctype)
    step.calls.append(
        f"{step.use(item)}({described}, {x}, {tables[0]}, {tables[1]}, {op.low}, {op.high}, "
        f"{nothing}, {y});"
    )


def plan_dequantize(context: Context, step: Step, op: Dequantize) -> None:
    """Codes to float: one multiplication."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    ctype = context.ctype(op.inputs[0])
    described = boundary_shape(context, step, op, False)
    item = kernel("dequantize", [ctype], type=ctype)
    scale = float_literal(float(np.float32(op.scale)))
    step.calls.append(f"{step.use(item)}({described}, {x}, {scale}, {y});")


def plan_threshold(context: Context, step: Step, op: Threshold) -> None:
    """A class map of one class."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    described = boundary_shape(context, step, op, False)
    limit = float_literal(op.limit)
    if x_type != "float":
        limit = integer_literal(op.code_limit or 0, "int32_t")
    item = kernel("threshold", [x_type, y_type], x=x_type, y=y_type)
    step.calls.append(f"{step.use(item)}({described}, {x}, {limit}, {y});")


def plan_pointwise(context: Context, step: Step, op: Pointwise) -> None:
    """A function of a float island, by <math.h>."""
    kind = context.type(op.inputs[0])
    x = context.read_as(step, "x", op.inputs[0], channels_last(kind.rank))
    y = context.write_as(step, "y", op.output, channels_last(kind.rank))
    extra = ""
    if isinstance(op, Elu):
        extra = f", {float_literal(op.alpha)}"
    elif isinstance(op, HardSigmoid):
        extra = f", {float_literal(op.alpha)}, {float_literal(op.beta)}"
    elif isinstance(op, TernaryTanh):
        extra = f", {float_literal(op.beta)}"
    elif isinstance(op, Steps):
        limits, values = (np.asarray(row, dtype=np.float32) for row in (op.limits, op.values))
        tables = [
            step.table(name, "float", row, Role.WEIGHTS)
            for name, row in (("limits", limits), ("values", values))
        ]
        extra = f", {tables[0]}, {len(limits)}, {tables[1]}"
    stem = "".join(f"_{c.lower()}" if c.isupper() else c for c in op.kind).lstrip("_")
    item = kernel(stem, ["float"], needs_math=True)
    if isinstance(op, Gelu):
        suffix = "_tanh" if op.tanh else ""
        item = kernel(stem, ["float"], suffix=suffix, needs_math=True, tanh=op.tanh)
    step.calls.append(f"{step.use(item)}({x}, {kind.size}{extra}, {y});")
