"""QuantizeLinear and DequantizeLinear; and what may stand between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.errors import ModelError
from qcompile.importer.builder import Builder
from qcompile.importer.codes import CodeFormat, element_codes
from qcompile.importer.node import Node
from qcompile.importer.operators.window import normal_axis
from qcompile.ops.activation import Activation
from qcompile.ops.fake_quantize import FakeQuantize
from qcompile.ops.rescale import Rescale
from qcompile.types import Array, Shape

CODES = ("uint8", "int8", "uint16", "int16")
"""Elements of tensors of codes that are computed at run time."""

MOVES_CODES = frozenset(
    {
        "Concat", "DepthToSpace", "Dropout", "Flatten", "GlobalMaxPool", "Identity", "MaxPool",
        "Pad", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose",
        "Unsqueeze", "Upsample",
    }
)  # fmt: skip
"""Operators that may work on codes: they copy or compare them."""

STATIC = "quantise statically (quantize_static, or the static export of your tool)"


@dataclass(frozen=True, slots=True)
class Grid:
    """Scale and zero point as the node says them: scalars, or vectors along `axis`. `dtype` is that
    of the codes, if a zero point says it."""

    scale: Array
    zero_point: Array
    axis: int | None
    dtype: np.dtype[Any] | None

    def spread(self, shape: Shape) -> tuple[Array, Array]:
        """Both, shaped to broadcast to a tensor of this shape."""
        if self.axis is None:
            return self.scale.reshape(()), self.zero_point.reshape(())
        broad = [1] * len(shape)
        broad[self.axis] = shape[self.axis]
        return self.scale.reshape(broad), self.zero_point.reshape(broad)

    def of_tensor(self, node: Node, low: int, high: int) -> CodeFormat:
        """The one format of a tensor that is computed at run time."""
        if len(set(self.scale.reshape(-1))) > 1 or len(set(self.zero_point.reshape(-1))) > 1:
            node.refuse(
                f"{self.scale.size} scales for a tensor that is computed at run time",
                "quantise activations per tensor; only weights may have a scale for each channel",
            )
        scale, zero = float(self.scale.reshape(-1)[0]), int(self.zero_point.reshape(-1)[0])
        return CodeFormat(scale, zero, low, high)


def convert_quantize_linear(node: Node, builder: Builder) -> None:
    """QuantizeLinear: a `FakeQuantize` whose result stands for codes."""
    shape = builder.shape_of(node, 0)
    grid = read_grid(node, builder, shape, (1, 2), axis_of(node, 1))
    quantize(node, builder, grid)


def quantize(node: Node, builder: Builder, grid: Grid, role: str = "") -> None:
    """Codes of the node's input 0 as its output.

    Args:
        node: names the operator.
        builder: the graph.
        grid: scale and zero point.
        role: what the operator is called where it is a part of the node.
    """
    dtype = np.dtype(np.uint8) if grid.dtype is None else grid.dtype
    if dtype.name not in CODES:
        node.refuse(f"codes of type {dtype}", f"use one of {', '.join(CODES)}")
    low, high = element_codes(dtype)
    data = builder.data(node.input(0))
    if data is not None:
        scale, zero = grid.spread(data.shape)
        steps = np.rint(data.astype(np.float32) / scale.astype(np.float32)) + zero
        builder.know(node.output, np.clip(steps, low, high).astype(dtype))
        return
    x = builder.source(node)
    form = grid.of_tensor(node, low, high)
    builder.emit(
        fake_quantize(builder.part_name(node, role) if role else node.name, x, node.output, form)
    )
    builder.codes[node.output] = form


def fake_quantize(name: str, x: str, output: str, form: CodeFormat) -> FakeQuantize:
    """The operator that rounds `x` to a format."""
    return FakeQuantize(
        name=name,
        inputs=(x,),
        outputs=(output,),
        scale=form.scale,
        low=form.low - form.zero_point,
        high=form.high - form.zero_point,
    )


def convert_dequantize_linear(node: Node, builder: Builder) -> None:
    """DequantizeLinear: of constants, numbers that remember their grid; else another name."""
    shape = builder.shape_of(node, 0)
    grid = read_grid(node, builder, shape, (1, 2), axis_of(node, 1))
    dequantize(node, builder, grid)


def dequantize(node: Node, builder: Builder, grid: Grid) -> None:
    """The real numbers of the node's input 0 as its output."""
    data = builder.data(node.input(0))
    if data is not None:
        if data.dtype.kind not in "iu":
            node.malformed(f"codes of type {data.dtype}")
        if grid.dtype is not None and grid.dtype != data.dtype:
            node.malformed(f"zero point of type {grid.dtype} for codes of type {data.dtype}")
        scale, zero = grid.spread(data.shape)
        centred = data.astype(np.int64) - zero
        # float32, as everybody computes it; the codes are found again from the scales
        builder.know(node.output, centred.astype(np.float32) * scale.astype(np.float32))
        builder.scales[node.output] = np.broadcast_to(scale, data.shape)
        return
    value = builder.movable(node)
    form = builder.codes.get(node.inputs[0])
    if form is None:
        form = _input_format(node, builder, value, grid)
    if grid.dtype is not None:
        low, high = element_codes(grid.dtype)
        if form.low < low or form.high > high:
            node.malformed(
                f"zero point of type {grid.dtype} for codes from {form.low} to {form.high}"
            )
    wanted = grid.of_tensor(node, form.low, form.high)
    if wanted == form:
        builder.alias(node.output, value)
        return
    # Codes written with one scale and read with another: exact on both grids.
    name, moved = builder.part(node, "reread")
    gain = wanted.scale / form.scale
    shift = wanted.scale * (form.zero_point - wanted.zero_point)
    builder.emit(
        Rescale(
            name=name,
            inputs=(value,),
            outputs=(moved,),
            activation=Activation(gain=(gain,), shift=(shift,)),
        )
    )
    builder.emit(fake_quantize(node.name, moved, node.output, wanted))


def _input_format(node: Node, builder: Builder, value: str, grid: Grid) -> CodeFormat:
    """A network input of integers: its real numbers are those that this node makes of it."""
    codes = builder.input_codes.get(value)
    if codes is None:
        node.refuse(
            f"'{node.inputs[0]}' holds no codes that a QuantizeLinear wrote",
            "put QuantizeLinear before DequantizeLinear",
        )
    form = grid.of_tensor(node, *codes)
    if codes not in ((0, 255), (-128, 127)):
        node.refuse("a network input of wide integers", "use uint8 or int8 inputs")
    if any(value in op.inputs for op in builder.ops):
        node.refuse(
            f"network input '{value}' is read as plain numbers and as codes",
            "read it through one DequantizeLinear only",
        )
    annotated = fake_quantize(node.name, value, node.output, form)
    builder.types[value] = annotated.annotated(builder.types[value])
    builder.codes[value] = form
    builder.release_pixels(value)
    return form


def convert_codes(node: Node, builder: Builder, converter: Callable[[Node, Builder], None]) -> None:
    """A node that reads codes: what moves them works on the real numbers instead.

    Raises:
        UnsupportedError: the node computes with codes.
    """
    formats = {builder.codes[value] for value in node.inputs if value in builder.codes}
    computed = [value for value in node.inputs if value and builder.data(value) is None]
    if node.operator == "Clip":
        _clip(node, builder)
        return
    linear = node.operator in ("Resize", "Upsample") and node.text("mode", "nearest") != "nearest"
    if node.operator not in MOVES_CODES or linear:
        node.refuse("arithmetic on the codes of a quantised tensor", "put DequantizeLinear before")
    if len(formats) > 1 or any(value not in builder.codes for value in computed):
        node.refuse(
            "tensors of codes with different scales or zero points",
            "put DequantizeLinear before and QuantizeLinear behind it",
        )
    (form,) = formats
    converter(_with_real_padding(node, builder, form), builder)
    for output in node.outputs:
        if output and builder.knows(output):
            builder.codes[output] = form


def _with_real_padding(node: Node, builder: Builder, form: CodeFormat) -> Node:
    """A Pad by a code as one by the real number it stands for."""
    if node.operator != "Pad" or node.text("mode", "constant") != "constant" or node.opset < 11:
        return node
    code = builder.scalar(node, 2, "value")
    name = builder.fresh(f"{node.name}.value")
    builder.know(name, np.asarray(form.real(0 if code is None else int(code))))
    inputs = [*node.inputs, "", ""]
    return dataclasses.replace(node, inputs=(*inputs[:2], name, *node.inputs[3:]))


def _clip(node: Node, builder: Builder) -> None:
    """Clip between QuantizeLinear and DequantizeLinear says how many bits there are."""
    form = builder.codes[node.inputs[0]]
    least, most = builder.scalar(node, 1, "min"), builder.scalar(node, 2, "max")
    low = form.low if least is None else max(form.low, int(least))
    high = form.high if most is None else min(form.high, int(most))
    if low > high:
        node.malformed(f"it leaves no code between {low} and {high}")
    narrow = dataclasses.replace(form, low=low, high=high)
    builder.emit(fake_quantize(node.name, builder.movable(node), node.output, narrow))
    builder.codes[node.output] = narrow


def axis_of(node: Node, default: int) -> int:
    """The axis of per-channel scales; refuses what the newest opsets add."""
    if node.integer("block_size", 0) != 0:
        node.refuse("blocked quantisation", "quantise per tensor or per channel")
    return node.integer("axis", default)


def read_grid(
    node: Node, builder: Builder, shape: Shape, positions: tuple[int, int], axis: int
) -> Grid:
    """Scale and zero point of a node, checked.

    Args:
        node: whose inputs they are.
        builder: knows constants.
        shape: of the tensor they belong to.
        positions: the inputs that hold them.
        axis: of the tensor, for vectors.

    Raises:
        UnsupportedError: they are computed at run time, or blocked.
        ModelError: a scale is no positive number, or they do not fit together.
    """
    for position, what in zip(positions, ("scale", "zero point"), strict=True):
        value = node.input(position)
        if value is not None and builder.data(value) is None:
            node.refuse(f"its {what} '{value}' is computed at run time", STATIC)
    scale = builder.required(node, positions[0], "scale").astype(np.float64)
    zero = builder.optional(node, positions[1], "zero point")
    if not np.isfinite(scale).all() or not (scale > 0).all() or scale.size == 0:
        wrong = scale.reshape(-1)[~(scale.reshape(-1) > 0) | ~np.isfinite(scale.reshape(-1))]
        shown = f"{wrong[0]:g}" if wrong.size else "nothing"
        raise ModelError(
            f"{node.label()}: scale {shown} is no scale; it must be a finite number above 0"
        )
    dtype = None if zero is None else zero.dtype
    if zero is None:
        zero = np.zeros(scale.shape, np.int64)
    elif zero.dtype.kind not in "iu":
        if zero.any() or not np.isfinite(zero).all():
            node.malformed(f"zero point of type {zero.dtype}; it must be an integer")
        node.refuse(f"quantisation to {zero.dtype}", "quantise to uint8, int8, uint16 or int16")
    if scale.ndim > 1 and scale.size > 1:
        node.refuse(
            f"scales of shape {list(scale.shape)}: blocked quantisation",
            "quantise per tensor or per channel",
        )
    if zero.size != scale.size and 1 not in (zero.size, scale.size):
        node.malformed(f"{zero.size} zero points for {scale.size} scales")
    count = max(scale.size, zero.size)
    if count == 1:
        return Grid(scale.reshape(()), zero.astype(np.int64).reshape(()), None, dtype)
    axis = normal_axis(node, axis, len(shape))
    if shape[axis] != count:
        node.malformed(f"{count} scales for axis {axis} of shape {list(shape)}")
    wide = np.broadcast_to(scale.reshape(-1), (count,))
    zeros = np.broadcast_to(zero.astype(np.int64).reshape(-1), (count,))
    return Grid(wide, zeros, axis, dtype)
