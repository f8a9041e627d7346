"""Planners of the operators that multiply by weight tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_depthwise import DepthwiseLayer, plan_depthwise
from qcompile.backends.c.conv_direct import plan_direct
from qcompile.backends.c.conv_planes import Window
from qcompile.backends.c.conv_single import plan_single
from qcompile.backends.c.conv_ternary import TernaryLayer, plan_ternary, ternary_levels
from qcompile.backends.c.conv_winograd import plan_winograd
from qcompile.backends.c.direct_layer import Part, conv_layer, conv_transpose_layer, matmul_layer
from qcompile.backends.c.epilogues import constants_type, plan_epilogue
from qcompile.backends.c.followers import Follower, plan_follower, with_follower
from qcompile.backends.c.head_planes import counts_planes, plan_head_planes
from qcompile.backends.c.names import type_size
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.backends.c.weights import (
    LENGTH_BLOCK,
    ROW_BLOCK,
    Block,
    can_tile,
    plan_rows,
    plan_tiles,
    round_up,
    tile_table,
)
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.choose_kernels import KernelChoice
from qcompile.passes.place_tensors import channels_last, natural
from qcompile.types import Array, Range, Shape

PATCH_BYTES = 24 * 1024
"""Patches of one tile stay in the first-level cache."""
TILE_PIXELS = (8, 64)
BYTE = Range(-128, 127)


def plane(values: Sequence[int], default: int) -> tuple[int, int]:
    """(vertical, horizontal) of one or two spatial axes; one axis is the horizontal one."""
    if len(values) == 1:
        return default, int(values[0])
    return int(values[0]), int(values[1])


def image_size(shape: Shape) -> tuple[int, int]:
    """(height, width) of [1, C, W] or [1, C, H, W]."""
    return plane(shape[2:], 1)


def tile_pixels(length: int, line: str, width: int) -> int:
    """Pixels whose patches are computed together: an even number."""
    fitting = PATCH_BYTES // (max(1, length) * type_size(line))
    limited = min(max(fitting, TILE_PIXELS[0]), TILE_PIXELS[1])
    return int(min(round_up(limited, 2), round_up(width, 2)))


def gather_kernel(x: str, line: str) -> Kernel:
    """The kernel that widens inputs into patches."""
    return kernel("gather", [x, line], x=x, line=line)


def dot_kernel(choice: KernelChoice) -> Kernel:
    """The kernel of the inner loops."""
    types = [choice.line, choice.sums]
    return kernel("dot_tile", types, line=choice.line, sums=choice.sums)


def plan_conv(context: Context, step: Step, op: Conv) -> None:
    """Convolution, and what runs on the rows that it has written."""
    follower = plan_follower(context, step, op)
    y = context.write_as(step, "y", op.output, channels_last(context.type(op.output).rank))
    if counts_planes(context, op):
        plan_head_planes(context, step, op, y)
    else:
        _plan_conv(context, step, op, y, follower)
    if follower is not None:
        for variant in step.variants:
            if not variant.follows:
                follower.run_whole(variant, y)


def _plan_conv(context: Context, step: Step, op: Conv, y: str, follower: Follower | None) -> None:
    """As dot products of gathered patches, or channel by channel."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    codes = image_weights(context.graph.constants[op.inputs[1]])
    choice = context.choices[op.name]
    parts = [op.inputs[0]]
    if op.inputs[0] in context.joined:
        parts = list(context.joined[op.inputs[0]].inputs)
        step.notes.append(f"with {context.joined[op.inputs[0]].label()}")
        x = ", ".join(
            f"{context.read(step, f'x{index}', value)}, {context.type(value).shape[1]}"
            for index, value in enumerate(parts)
        )
    else:
        x = context.read_as(step, "x", op.inputs[0], channels_last(len(shape)))
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    epilogue = plan_epilogue(context, step, op, out[1])
    size, out_size = image_size(shape), image_size(out)
    per_group = out[1] // op.groups
    length = round_up(codes[0].size, LENGTH_BLOCK)
    rows = round_up(per_group, ROW_BLOCK)
    tile = tile_pixels(length, choice.line, out_size[1])
    stride, pad = plane(op.strides, 1), plane(op.pads_begin, 0)
    dilation = plane(op.dilations, 1)
    portable = step.variant(None)
    ordered = codes.transpose(0, 2, 3, 1)
    # Without dilation the taps of a kernel row lie side by side, in x as in the weights.
    segment = shape[1] * (codes.shape[3] if dilation[1] == 1 else 1)
    tiled = choice.kernel == "conv" and has_tiles(context, op, choice, segment)
    if tiled:
        block = Block(ordered, 1, out[1], codes[0].size, segment)
        layer = conv_layer(
            _input_parts(context, parts, x),
            size,
            out_size,
            _input_codes(context, parts),
            ordered,
            stride,
            pad,
            dilation,
        )
        window = Window(codes.shape[2:], stride, pad, dilation)
        ternary = TernaryLayer(layer, window, ordered)
        added = ternary_levels(context, ternary, parts)
        if None in added:
            table = tile_table(context, step, op.inputs[1], [block])
        else:
            table = plan_tiles(context, step, portable, op.inputs[1], choice.line, [block])
        for level in added:
            variant = portable if level is None else step.variant(level)
            plan_ternary(context, step, variant, ternary, table, epilogue, y)
        others = dataclasses.replace(
            context, levels=tuple(level for level in context.levels if level not in added)
        )
        levels = plan_winograd(others, step, layer, parts, table, epilogue, y, follower)
        levels = plan_single(context, step, layer, table, epilogue, y, levels)
        plan_direct(context, step, layer, table, epilogue, y, levels, follower)
        if None in added:
            return
    described = step.shape(
        "conv_shape",
        "shape",
        size=size,
        out_size=out_size,
        kernel=codes.shape[2:],
        stride=stride,
        pad=pad,
        dilation=dilation,
        channels=shape[1],
        filters=out[1],
        groups=op.groups,
        tile=tile,
    )
    if choice.kernel == "conv_depthwise":
        taps = codes.reshape(out[1], -1).T
        block = Block(taps, 1, taps.shape[0], out[1])
        packed = plan_rows(context, step, portable, op.inputs[1], choice.line, [block], "column")
        portable.scratch(choice.sums, "sums", out[1])
        item = _layer_kernel("conv_depthwise", x_type, y_type, choice, epilogue)
        portable.calls.append(
            f"{portable.use(item)}({described}, {x}, weights, &epilogue, {y}, sums);"
        )
        if packed is not None and is_bytes(context, op, choice):
            depthwise = DepthwiseLayer(
                Part(x, x_type, out[1]),
                size,
                out_size,
                _input_codes(context, parts),
                codes[:, 0],
                stride,
                pad,
                dilation,
            )
            plan_depthwise(context, step, depthwise, packed, epilogue, y)
        return
    if not tiled:
        block = Block(ordered, op.groups, per_group, codes[0].size)
        plan_rows(context, step, portable, op.inputs[1], choice.line, [block], "row")
    portable.scratch(choice.line, "patches", tile * length)
    portable.scratch(choice.sums, "sums", tile * rows)
    if op.inputs[0] in context.joined:
        types = [context.ctype(value) for value in parts]
        item = _joined_kernel(types, y_type, choice, epilogue)
    else:
        item = _layer_kernel("conv", x_type, y_type, choice, epilogue)
    item = with_follower(item, follower)
    arguments = [described, x, "weights", "&epilogue", y, "patches", "sums"]
    if follower is not None:
        arguments += follower.arguments
        portable.follows = True
    portable.calls.append(f"{portable.use(item)}({', '.join(arguments)});")


def _input_parts(context: Context, values: Sequence[str], x: str) -> list[Part]:
    """What a convolution reads: `x`, or the values that a concatenation would have joined."""
    names = [x] if len(values) == 1 else [f"x{index}" for index in range(len(values))]
    return [
        Part(name, context.ctype(value), context.type(value).shape[1])
        for name, value in zip(names, values, strict=True)
    ]


def _input_codes(context: Context, values: Sequence[str]) -> Range:
    """The codes of all inputs, and that of padding."""
    codes = Range(0, 0)
    for value in values:
        codes = codes.union(context.type(value).codes)
    return codes


def has_tiles(
    context: Context, op: Conv | ConvTranspose | MatMul, choice: KernelChoice, segment: int
) -> bool:
    """The weights lie in tiles, for SIMD kernels of one group."""
    return (
        is_bytes(context, op, choice)
        and getattr(op, "groups", 1) == 1
        and can_tile(context, op.inputs[1], segment)
    )


def is_bytes(context: Context, op: Conv | ConvTranspose | MatMul, choice: KernelChoice) -> bool:
    """SIMD kernels take it: bytes times bytes, and 32-bit sums."""
    x, weights = (context.type(value) for value in op.inputs[:2])
    if x.is_float or weights.is_float or choice.sums != "int32_t" or not context.levels:
        return False
    return bool(x.element.storage.itemsize == 1 and BYTE.contains(weights.codes))


def plan_conv_transpose(context: Context, step: Step, op: ConvTranspose) -> None:
    """Transposed convolution: one ordinary convolution for each phase of the stride."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    codes = image_weights(context.graph.constants[op.inputs[1]])
    choice = context.choices[op.name]
    x = context.read_as(step, "x", op.inputs[0], channels_last(len(shape)))
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    epilogue = plan_epilogue(context, step, op, out[1])
    stride, pads, dilation = (
        plane(op.strides, 1),
        plane(op.pads_begin, 0),
        plane(op.dilations, 1),
    )
    phases_y = phase_taps(codes.shape[2], stride[0], pads[0], dilation[0])
    phases_x = phase_taps(codes.shape[3], stride[1], pads[1], dilation[1])
    inputs, outputs = shape[1] // op.groups, out[1] // op.groups
    grouped = codes.reshape(op.groups, inputs, outputs, *codes.shape[2:])
    blocks = []
    for taps_y in phases_y:
        for taps_x in phases_x:
            chosen = grouped[:, :, :, [k for k, _ in taps_y]][..., [k for k, _ in taps_x]]
            ordered = chosen.transpose(0, 2, 3, 4, 1)
            length = len(taps_y) * len(taps_x) * inputs
            blocks.append(Block(ordered, op.groups, outputs, length, inputs))
    portable = step.variant(None)
    if has_tiles(context, op, choice, inputs):
        table = plan_tiles(context, step, portable, op.inputs[1], choice.line, blocks)
        layer = conv_transpose_layer(
            _input_parts(context, op.inputs[:1], x)[0],
            image_size(shape),
            image_size(out),
            _input_codes(context, op.inputs[:1]),
            phases_y,
            phases_x,
            [block.codes.reshape(outputs, -1, inputs) for block in blocks],
        )
        plan_direct(context, step, layer, table, epilogue, y, context.levels)
    else:
        plan_rows(context, step, portable, op.inputs[1], choice.line, blocks, "row")
    longest = max(round_up(block.length, LENGTH_BLOCK) for block in blocks)
    tile = tile_pixels(longest, choice.line, -(-out[-1] // stride[1]))
    described = step.shape(
        "conv_transpose_shape",
        "shape",
        size=image_size(shape),
        out_size=image_size(out),
        stride=stride,
        channels=shape[1],
        filters=out[1],
        groups=op.groups,
        tile=tile,
    )
    tables = []
    for axis, phases in (("y", phases_y), ("x", phases_x)):
        tables.append(
            step.table(f"counts_{axis}", "int32_t", [len(taps) for taps in phases], Role.TABLE)
        )
        offsets = [offset for taps in phases for _, offset in taps] or [0]
        tables.append(step.table(f"taps_{axis}", "int32_t", offsets, Role.TABLE))
    portable.scratch(choice.line, "patches", tile * longest)
    portable.scratch(choice.sums, "sums", tile * round_up(outputs, ROW_BLOCK))
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    item = _layer_kernel("conv_transpose", x_type, y_type, choice, epilogue)
    portable.calls.append(
        f"{portable.use(item)}({described}, {x}, weights, {', '.join(tables)}, &epilogue, {y}, "
        "patches, sums);"
    )


def plan_matmul(context: Context, step: Step, op: MatMul) -> None:
    """Product with a constant matrix: a convolution with one tap over the rows of x."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    choice = context.choices[op.name]
    x = context.read_as(step, "x", op.inputs[0], natural(len(shape)))
    y = context.write_as(step, "y", op.output, natural(len(out)))
    epilogue = plan_epilogue(context, step, op, out[-1])
    matrix = context.graph.constants[op.inputs[1]]
    inputs, outputs = matrix.shape
    width = context.type(op.inputs[0]).size // inputs
    length = round_up(inputs, LENGTH_BLOCK)
    tile = tile_pixels(length, choice.line, width)
    described = step.shape(
        "matmul_shape", "shape", rows=width, inputs=inputs, outputs=outputs, tile=tile
    )
    block = Block(np.ascontiguousarray(matrix.T), 1, outputs, inputs, inputs)
    portable = step.variant(None)
    if has_tiles(context, op, choice, inputs):
        table = plan_tiles(context, step, portable, op.inputs[1], choice.line, [block])
        part = Part(x, context.ctype(op.inputs[0]), inputs)
        layer = matmul_layer(part, width, _input_codes(context, op.inputs[:1]), matrix)
        plan_direct(context, step, layer, table, epilogue, y, context.levels)
    else:
        plan_rows(context, step, portable, op.inputs[1], choice.line, [block], "row")
    portable.scratch(choice.line, "patches", tile * length)
    portable.scratch(choice.sums, "sums", tile * round_up(outputs, ROW_BLOCK))
    x_type, y_type = context.ctype(op.inputs[0]), context.ctype(op.output)
    item = _layer_kernel("matmul", x_type, y_type, choice, epilogue)
    portable.calls.append(
        f"{portable.use(item)}({described}, {x}, weights, &epilogue, {y}, patches, sums);"
    )


def image_weights(weights: Array) -> Array:
    """Weights of a 1-D kernel as those of a kernel of height 1."""
    return weights[:, :, None, :] if weights.ndim == 3 else weights


def phase_taps(
    kernel_size: int, stride: int, pad: int, dilation: int
) -> list[list[tuple[int, int]]]:
    """For each output phase the (tap, input offset) pairs that reach it.

    Output position o = phase + i * stride receives tap k from input i + offset, where
    o + pad - k * dilation = (i + offset) * stride.
    """
    return [
        [
            (k, (phase + pad - k * dilation) // stride)
            for k in range(kernel_size)
            if (phase + pad - k * dilation) % stride == 0
        ]
        for phase in range(stride)
    ]


def _layer_kernel(template: str, x: str, y: str, choice: KernelChoice, epilogue: Kernel) -> Kernel:
    requires = [epilogue]
    gather_name = dot_name = ""
    if template != "conv_depthwise":
        gather, dot = gather_kernel(x, choice.line), dot_kernel(choice)
        requires = [gather, dot, epilogue]
        gather_name, dot_name = gather.function, dot.function
    types = [x] if choice.line == "int16_t" else [x, choice.line]
    return kernel(
        template,
        types,
        requires=requires,
        suffix="_" + epilogue.function,
        x=x,
        y=y,
        line=choice.line,
        sums=choice.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
        gather=gather_name,
        dot_tile=dot_name,
    )


def _joined_kernel(parts: Sequence[str], y: str, choice: KernelChoice, epilogue: Kernel) -> Kernel:
    gathers = [gather_kernel(part, choice.line) for part in parts]
    dot = dot_kernel(choice)
    return kernel(
        "conv_joined",
        [*parts] if choice.line == "int16_t" else [*parts, choice.line],
        requires=[*dict.fromkeys(gathers), dot, epilogue],
        suffix="_" + epilogue.function,
        types=",".join(parts),
        y=y,
        line=choice.line,
        sums=choice.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
        gather=",".join(item.function for item in gathers),
        dot_tile=dot.function,
    )
