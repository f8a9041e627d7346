"""QONNX: Quant (IntQuant), BipolarQuant and Trunc, which Brevitas and QKeras export.

They take and give real numbers; docs/quantized-models.md has their formulas.
"""

from __future__ import annotations

import math

import numpy as np

from qcompile.errors import ModelError
from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.quantize import STATIC
from qcompile.ops.activation import Activation
from qcompile.ops.fake_quantize import FakeQuantize, rounded
from qcompile.ops.rescale import Rescale
from qcompile.types import Array, Rounding, Shape

MAX_BITS = 16
ADVICE = "export with one scale for each activation tensor"

ROUNDINGS = {
    "ROUND": Rounding.HALF_EVEN,
    "HALF_EVEN": Rounding.HALF_EVEN,
    "HALF_UP": Rounding.HALF_UP,
    "HALF_DOWN": Rounding.HALF_DOWN,
    "UP": Rounding.UP,
    "DOWN": Rounding.DOWN,
    "ROUND_TO_ZERO": Rounding.DOWN,
    "CEIL": Rounding.CEIL,
    "FLOOR": Rounding.FLOOR,
}
"""The names of QONNX, and of Brevitas where it has others."""


def convert_quant(node: Node, builder: Builder) -> None:
    """Quant: scale * (clamp(round(x / scale + zero point)) - zero point)."""
    scale = _positive(node, builder, 1, "scale")
    zero = _constant(node, builder, 2, "zero point")
    bits = _bits(node, builder, 3)
    signed, narrow = node.flag("signed", True), node.flag("narrow", True)
    rounding = _rounding(node, "ROUND")
    if not np.isfinite(zero).all() or (zero != np.rint(zero)).any():
        node.refuse("a zero point that is no integer", "export with integer zero points")
    if zero.any() and rounding in SIGN_DEPENDENT:
        node.refuse(
            f"rounding mode {rounding.value} with a zero point", "export with ROUND, FLOOR or CEIL"
        )
    if bits == 1 and signed:
        if zero.any():
            node.refuse("one signed bit with a zero point", "export with the zero point 0")
        _quantize(node, builder, scale, np.zeros(()), (-1, 1), rounding, binary=True)
        return
    _quantize(node, builder, scale, zero, _span(bits, signed, narrow), rounding)


def convert_bipolar_quant(node: Node, builder: Builder) -> None:
    """BipolarQuant: scale for x >= 0, -scale below."""
    scale = _positive(node, builder, 1, "scale")
    _quantize(node, builder, scale, np.zeros(()), (-1, 1), Rounding.HALF_EVEN, binary=True)


def convert_trunc(node: Node, builder: Builder) -> None:
    """Trunc: the lowest bits of a value on a grid fall off.

    With five inputs the result is on the grid of the input, and so is 2**k times smaller; with six
    (an output scale) it keeps its magnitude.
    """
    scale = _single(node, _positive(node, builder, 1, "scale"))
    zero = _single(node, _constant(node, builder, 2, "zero point"))
    if zero != 0:
        node.refuse("a zero point", "export with the zero point 0")
    before = _bits(node, builder, 3, most=32)
    rounding = _rounding(node, "FLOOR")
    x = builder.source(node)
    # The input is on the grid up to float noise, with or without a sign.
    name, on_grid = builder.part(node, "input")
    builder.emit(
        FakeQuantize(
            name=name,
            inputs=(x,),
            outputs=(on_grid,),
            scale=scale,
            low=-(1 << (before - 1)),
            high=(1 << before) - 1,
        )
    )
    if len(node.inputs) == 6:
        target = _single(node, _positive(node, builder, 4, "output scale"))
        shift = round(math.log2(target / scale))
        if target != scale * 2.0**shift:
            node.refuse(
                f"output scale {target:g}, which is no power of two times {scale:g}",
                "export with scales that are powers of two apart",
            )
        bits = _bits(node, builder, 5)
        low, high = _span(bits, node.flag("signed", True), node.flag("narrow", False))
        source = on_grid
    else:
        shift = before - _bits(node, builder, 4, most=32)
        target = scale
        low, high = -(1 << (before - 1)) >> shift, ((1 << before) - 1) >> shift
        name, source = builder.part(node, "shift")
        gain = Activation(gain=(2.0**-shift,))
        builder.emit(Rescale(name=name, inputs=(on_grid,), outputs=(source,), activation=gain))
    if shift < 0:
        node.refuse(f"truncation by {shift} bits", "export with fewer bits behind than before")
    builder.emit(
        FakeQuantize(
            name=node.name,
            inputs=(source,),
            outputs=(node.output,),
            scale=target,
            low=low,
            high=high,
            rounding=rounding,
        )
    )


SIGN_DEPENDENT = (Rounding.UP, Rounding.DOWN, Rounding.HALF_UP, Rounding.HALF_DOWN)


def _quantize(
    node: Node,
    builder: Builder,
    scale: Array,
    zero: Array,
    span: tuple[int, int],
    rounding: Rounding,
    binary: bool = False,
) -> None:
    """Constants become numbers on a grid; what is computed gets a `FakeQuantize`."""
    data = builder.data(node.input(0))
    if data is not None:
        if not _broadcasts(data.shape, scale.shape, zero.shape):
            node.malformed(
                f"scale of shape {list(scale.shape)} and zero point of shape {list(zero.shape)} "
                f"for an input of shape {list(data.shape)}"
            )
        grid = scale.astype(np.float32)
        steps = data.astype(np.float32) / grid
        if binary:
            codes = np.where(steps >= 0, np.float32(1), np.float32(-1))
        else:
            codes = rounded(np.clip(steps, span[0] - zero, span[1] - zero), rounding)
        real = (codes * grid).astype(np.float32)
        builder.know(node.output, real)
        builder.scales[node.output] = np.broadcast_to(scale, real.shape)
        return
    step, shift = _single(node, scale), int(_single(node, zero))
    builder.emit(
        FakeQuantize(
            name=node.name,
            inputs=(builder.source(node),),
            outputs=(node.output,),
            scale=step,
            low=span[0] - shift,
            high=span[1] - shift,
            rounding=rounding,
            binary=binary,
        )
    )


def _broadcasts(shape: Shape, *others: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, *others) == shape
    except ValueError:
        return False


def _span(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The least and the greatest code, as QONNX defines them."""
    if signed:
        return -(1 << (bits - 1)) + (1 if narrow else 0), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - (2 if narrow else 1)


def _rounding(node: Node, default: str) -> Rounding:
    text = node.text("rounding_mode", default)
    found = ROUNDINGS.get(text.upper())
    if found is None:
        node.refuse(f"rounding mode '{text[:40]}'", f"use one of {', '.join(ROUNDINGS)}")
    return found


def _constant(node: Node, builder: Builder, index: int, what: str) -> Array:
    value = node.input(index)
    if value is not None and builder.data(value) is None:
        node.refuse(f"its {what} '{value}' is computed at run time", STATIC)
    return builder.required(node, index, what).astype(np.float64)


def _positive(node: Node, builder: Builder, index: int, what: str) -> Array:
    scale = _constant(node, builder, index, what)
    if scale.size == 0 or not np.isfinite(scale).all() or not (scale > 0).all():
        shown = f"{scale.min():g}" if scale.size else "nothing"
        raise ModelError(
            f"{node.label()}: {what} {shown} is no scale; it must be a finite number above 0"
        )
    return scale


def _single(node: Node, values: Array) -> float:
    if len(set(values.reshape(-1).tolist())) != 1:
        node.refuse(f"{values.size} scales for a tensor that is computed at run time", ADVICE)
    return float(values.reshape(-1)[0])


def _bits(node: Node, builder: Builder, index: int, most: int = MAX_BITS) -> int:
    width = _single(node, _constant(node, builder, index, "bit width"))
    if not 1 <= width <= most or width != round(width):
        node.refuse(f"{width:g} bits", f"use whole widths from 1 to {most}")
    return int(width)
