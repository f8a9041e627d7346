"""Planners of layers that unpack the weights of a few filters at a time, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.epilogues import constants_type, plan_epilogue
from qcompile.backends.c.layers import (
    gather_kernel,
    image_size,
    image_weights,
    phase_taps,
    plane,
)
from qcompile.backends.c.names import type_size
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.backends.c.row_context import RowContext
from qcompile.backends.c.weights import (
    LENGTH_BLOCK,
    ROW_BLOCK,
    PackedTable,
    pack_table,
    round_up,
    unpack_kernel,
)
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.choose_kernels import INT16, KernelChoice
from qcompile.passes.place_tensors import channels_last, natural
from qcompile.types import Array, IntType, Range

UNPACKED_BYTES = 4096
"""Filters are unpacked together as long as they are no larger, and at least four."""
PIXELS = 2


@dataclass(frozen=True)
class _Filters:
    """The weights of one layer, and how its kernel reads them.

    Attributes:
        table: the packed constant.
        weight: C type of an unpacked weight.
        line: C type of an element of a patch.
        sums: C type of a sum.
        block: filters unpacked together; all of one group.
        count: all filters.
    """

    table: PackedTable
    weight: str
    line: str
    sums: str
    block: int
    count: int

    @property
    def together(self) -> str:
        """The number of filters from `first` on that are unpacked, in C."""
        if self.count % self.block == 0:
            return str(self.block)
        rest = self.count - self.block
        return f"(first <= {rest} ? {self.block} : {self.count} - first)"

    def unpack(self, step: Step, first: str, length: str) -> str:
        """The call that fills `weights` with the filters from weight number `first` on."""
        function = step.use(unpack_kernel(self.table, self.weight, scaled=False, tiled=False))
        return (
            f"{function}({self.table.arguments}, {first}, 1, {self.together}, {length}, weights);"
        )

    def dot(self) -> Kernel:
        types = [self.line, self.weight, self.sums]
        return kernel("dot_pairs", types, line=self.line, weight=self.weight, sums=self.sums)

    def loop(self, lines: Sequence[str]) -> list[str]:
        """`lines` for every block of filters, which begins with filter `first`."""
        head = f"for (int32_t first = 0; first < {self.count}; first += {self.block}) {{"
        return [head, *(f"    {line}" for line in lines), "}"]


def plan_conv(context: RowContext, step: Step, op: Conv) -> None:
    """Convolution; one of each channel by itself keeps all its few weights unpacked."""
    out = context.graph.types[op.output].shape
    codes = image_weights(context.graph.constants[op.inputs[1]])
    choice = context.choices[op.name]
    parts = [op.inputs[0]]
    if op.inputs[0] in context.joined:
        parts = list(context.joined[op.inputs[0]].inputs)
        step.notes.append(f"with {context.joined[op.inputs[0]].label()}")
    shapes = [context.graph.types[value].shape for value in parts]
    per_group = out[1] // op.groups
    described = step.shape(
        "conv_rows_shape",
        "shape",
        size=image_size(shapes[0]),
        out_width=out[-1],
        kernel=codes.shape[2:],
        stride=plane(op.strides, 1),
        pad=plane(op.pads_begin, 0),
        dilation=plane(op.dilations, 1),
        inputs=codes.shape[1],
        outputs=per_group,
        filters=out[1],
    )
    names = ["x"] if len(parts) == 1 else [f"x{index}" for index in range(len(parts))]
    x = [context.read_ring(step, name, value) for name, value in zip(names, parts, strict=True)]
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    epilogue = plan_epilogue(context, step, op, out[1])
    types = [context.ctype(value) for value in parts]
    if choice.kernel == "conv_depthwise":
        _plan_depthwise(context, step, op, codes, f"{described}, row, {x[0]}", y, epilogue)
        return
    length = codes[0].size
    line = _line(choice, types)
    # The kernel's inner loops run over channels, so a public tensor is read in its own order.
    shape = shapes[0]
    planar = not context.placements[parts[0]].same_memory(channels_last(len(shape)), shape)
    ordered = codes.transpose(0, 2, 3, 1)
    filters = _filters(
        context, step, op.inputs[1], ordered, choice, line, out[1], op.groups, length
    )
    _scratch(step, filters, length)
    gathers = [gather_kernel(each, line) for each in types]
    dot = filters.dot()
    item = kernel(
        "conv_rows",
        [*types, line, filters.weight],
        requires=[*dict.fromkeys(gathers), dot, epilogue],
        suffix=("_planar_" if planar else "_") + epilogue.function,
        types=",".join(types),
        planar=planar,
        line=line,
        weight=filters.weight,
        y=context.ctype(op.output),
        sums=filters.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
        gather=",".join(each.function for each in gathers),
        dot_pairs=dot.function,
    )
    sources = ", ".join(f"{each}, {shape[1]}" for each, shape in zip(x, shapes, strict=True))
    step.calls += filters.loop(
        [
            filters.unpack(step, f"first * {length}", str(length)),
            f"{step.use(item)}({described}, row, first, {filters.together}, {sources}, weights, "
            f"&epilogue, {y}, patches, sums);",
        ]
    )


def _plan_depthwise(
    context: RowContext,
    step: Step,
    op: Conv,
    codes: Array,
    arguments: str,
    y: str,
    epilogue: Kernel,
) -> None:
    choice = context.choices[op.name]
    taps = codes.reshape(len(codes), -1).T
    table = pack_table(context, step, op.inputs[1], np.ascontiguousarray(taps).reshape(-1))
    weight = _weight_type(codes, choice)
    rows, length = round_up(taps.shape[0], ROW_BLOCK), round_up(taps.shape[1], LENGTH_BLOCK)
    step.scratch(weight, "weights", rows * length)
    step.scratch(choice.sums, "sums", len(codes))
    x_type = context.ctype(op.inputs[0])
    item = kernel(
        "conv_depthwise_rows",
        [x_type, weight],
        requires=[epilogue],
        suffix="_" + epilogue.function,
        x=x_type,
        weight=weight,
        y=context.ctype(op.output),
        sums=choice.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )
    unpack = step.use(unpack_kernel(table, weight, scaled=False, tiled=False))
    step.calls += [
        f"{unpack}({table.arguments}, 0, 1, {taps.shape[0]}, {taps.shape[1]}, weights);",
        f"{step.use(item)}({arguments}, weights, &epilogue, {y}, sums);",
    ]


def plan_conv_transpose(context: RowContext, step: Step, op: ConvTranspose) -> None:
    """Transposed convolution: pixels that meet the same taps together."""
    shape, out = (context.graph.types[value].shape for value in (op.inputs[0], op.output))
    codes = image_weights(context.graph.constants[op.inputs[1]])
    choice = context.choices[op.name]
    stride, pads, dilation = (
        plane(op.strides, 1),
        plane(op.pads_begin, 0),
        plane(op.dilations, 1),
    )
    x = context.read_ring(step, "x", op.inputs[0])
    y = context.write_as(step, "y", op.output, channels_last(len(out)))
    epilogue = plan_epilogue(context, step, op, out[1])
    inputs, outputs = shape[1] // op.groups, out[1] // op.groups
    described = step.shape(
        "conv_transpose_rows_shape",
        "shape",
        size=image_size(shape),
        out_width=out[-1],
        kernel=codes.shape[2:],
        stride=stride,
        pad=pads,
        dilation=dilation,
        channels=shape[1],
        inputs=inputs,
        outputs=outputs,
        filters=out[1],
    )
    grouped = codes.reshape(op.groups, inputs, outputs, *codes.shape[2:])
    ordered, phases = [np.zeros(0, codes.dtype)], []
    start = longest = 0
    for taps_y in phase_taps(codes.shape[2], stride[0], pads[0], dilation[0]):
        for taps_x in phase_taps(codes.shape[3], stride[1], pads[1], dilation[1]):
            chosen = grouped[:, :, :, [k for k, _ in taps_y]][..., [k for k, _ in taps_x]]
            ordered.append(chosen.transpose(0, 2, 3, 4, 1).reshape(-1))
            length = len(taps_y) * len(taps_x) * inputs
            phases += [start, length]
            start, longest = start + chosen.size, max(longest, length)
    table = step.table("phases", "int32_t", phases, Role.TABLE, "first weight and taps of a phase")
    x_type = context.ctype(op.inputs[0])
    line = _line(choice, [x_type])
    stream = np.concatenate(ordered)
    filters = _filters(
        context, step, op.inputs[1], stream, choice, line, out[1], op.groups, longest
    )
    _scratch(step, filters, longest)
    gather, dot = gather_kernel(x_type, line), filters.dot()
    item = kernel(
        "conv_transpose_rows",
        [x_type, line, filters.weight],
        requires=[gather, dot, epilogue],
        suffix="_" + epilogue.function,
        x=x_type,
        line=line,
        weight=filters.weight,
        y=context.ctype(op.output),
        sums=filters.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
        gather=gather.function,
        dot_pairs=dot.function,
    )
    unpack = filters.unpack(step, "phase[0] + first * phase[1]", "phase[1]")
    if 0 in phases[1::2]:
        unpack = f"if (phase[1] > 0) {{ {unpack} }}"
    body = filters.loop(
        [
            unpack,
            f"{step.use(item)}({described}, row, start, first, {filters.together}, {x}, weights, "
            f"&epilogue, {y}, patches, sums);",
        ]
    )
    step.calls += [
        f"for (int32_t start = 0; start < {stride[1]}; ++start) {{",
        f"    const int32_t *const phase = {table}",
        f"        + 2 * (row % {stride[0]} * {stride[1]} + start);",
        *(f"    {line}" for line in body),
        "}",
    ]


def plan_matmul(context: RowContext, step: Step, op: MatMul) -> None:
    """Product with a constant matrix: a convolution with one tap over the rows of x."""
    out = context.graph.types[op.output].shape
    choice = context.choices[op.name]
    kind = context.graph.types[op.inputs[0]]
    x = context.read_as(step, "x", op.inputs[0], natural(kind.rank))
    y = context.write_as(step, "y", op.output, natural(len(out)))
    epilogue = plan_epilogue(context, step, op, out[-1])
    matrix = context.graph.constants[op.inputs[1]]
    inputs, outputs = matrix.shape
    width = kind.size // inputs
    described = step.shape(
        "conv_rows_shape",
        "shape",
        size=(1, width),
        out_width=width,
        kernel=(1, 1),
        stride=(1, 1),
        pad=(0, 0),
        dilation=(1, 1),
        inputs=inputs,
        outputs=outputs,
        filters=outputs,
    )
    x_type = context.ctype(op.inputs[0])
    line = _line(choice, [x_type])
    codes = np.ascontiguousarray(matrix.T)
    filters = _filters(context, step, op.inputs[1], codes, choice, line, outputs, 1, inputs)
    _scratch(step, filters, inputs)
    gather, dot = gather_kernel(x_type, line), filters.dot()
    item = kernel(
        "conv_rows",
        [x_type, line, filters.weight],
        requires=[gather, dot, epilogue],
        suffix="_" + epilogue.function,
        types=x_type,
        planar=False,
        line=line,
        weight=filters.weight,
        y=context.ctype(op.output),
        sums=filters.sums,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
        gather=gather.function,
        dot_pairs=dot.function,
    )
    step.calls += filters.loop(
        [
            filters.unpack(step, f"first * {inputs}", str(inputs)),
            f"{step.use(item)}({described}, row, first, {filters.together}, {x}, 1, {inputs}, "
            f"weights, &epilogue, {y}, patches, sums);",
        ]
    )


def _line(choice: KernelChoice, types: Sequence[str]) -> str:
    """C type of patches: that of the inputs if they have one, and products in `int` are exact."""
    if choice.line == "int16_t" and len(set(types)) == 1:
        return types[0]
    return choice.line


def _weight_type(codes: Array, choice: KernelChoice) -> str:
    """The smallest C type that holds all weights."""
    if codes.size == 0:
        return "int8_t"
    values = Range(int(codes.min()), int(codes.max()))
    narrow = IntType(8).range.contains(values)
    return "int8_t" if narrow and INT16.contains(values) else choice.line


def _filters(
    context: RowContext,
    step: Step,
    value: str,
    codes: Array,
    choice: KernelChoice,
    line: str,
    count: int,
    groups: int,
    length: int,
) -> _Filters:
    """Adds the packed weights `codes` (in the order of reading) of constant `value`."""
    table = pack_table(context, step, value, codes.reshape(-1))
    weight = _weight_type(codes, choice)
    size = max(1, round_up(length, LENGTH_BLOCK) * type_size(weight))
    fitting = max(ROW_BLOCK, UNPACKED_BYTES // size // ROW_BLOCK * ROW_BLOCK)
    block = min(fitting, count // groups)
    if groups > 1:
        block = max(n for n in range(1, block + 1) if count // groups % n == 0)
    return _Filters(table, weight, line, choice.sums, block, count)


def _scratch(step: Step, filters: _Filters, length: int) -> None:
    """Memory for the weights of a block, for patches and for sums."""
    rows, padded = round_up(filters.block, ROW_BLOCK), round_up(length, LENGTH_BLOCK)
    step.scratch(filters.weight, "weights", rows * padded)
    step.scratch(filters.line, "patches", PIXELS * padded)
    step.scratch(filters.sums, "sums", PIXELS * rows)
