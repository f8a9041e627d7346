"""Weights and biases of QDQ and QCDQ: integers in the file, each with its DequantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.exporter.dialect import real_name
from qcompile.exporter.scope import Scope
from qcompile.exporter.storage import weight_storage
from qcompile.exporter.writer import WIDE_OPSET, Writer
from qcompile.ops import ConvTranspose
from qcompile.passes.weight_rows import channel_axis, to_rows
from qcompile.types import Array, Range, TensorType

INT4_BITS = 4


def weights(
    scope: Scope, value: str, codes: Array, kind: TensorType, int4: bool, clips: bool
) -> str:
    """Codes with their scales by channel; returns the real value.

    Args:
        scope: the operator.
        value: name of the codes.
        codes: in the type to store them in.
        kind: their type.
        int4: store what has at most 4 bits as INT4.
        clips: say narrow widths by a Clip.
    """
    assert kind.quantization is not None
    writer, node = scope.writer, f"{scope.op.name}/weights"
    int4 = int4 and kind.integer.bits <= INT4_BITS
    stored = _store(writer, value, codes, int4)
    if clips and kind.integer.bits < 8:
        stored = clip_codes(writer, node, stored, kind.integer.range, str(codes.dtype))
    scales = np.asarray(kind.quantization.scale, dtype=np.float32)
    target = real_name(writer, value)
    return _dequantize(writer, node, stored, target, scales, channel_axis(scope.op), codes, int4)


def grouped_weights(scope: Scope, value: str, codes: Array, kind: TensorType, int4: bool) -> str:
    """Weights of a transposed convolution in groups: its output channels lie on two axes, so the
    codes are stored as [output channels, ...] and brought into shape behind DequantizeLinear."""
    assert kind.quantization is not None
    assert isinstance(scope.op, ConvTranspose)
    groups, shape = scope.op.groups, codes.shape
    int4 = int4 and kind.integer.bits <= INT4_BITS
    rows = to_rows(scope.op, codes).astype(weight_storage(kind.integer))
    stored = _store(scope.writer, value, rows, int4)
    scales = np.asarray(kind.quantization.scale, dtype=np.float32)
    node, target = f"{scope.op.name}/weights", scope.writer.fresh(f"{value}.rows")
    real = _dequantize(scope.writer, node, stored, target, scales, 0, rows, int4)
    split = (groups, shape[1], shape[0] // groups, *shape[2:])
    order = [0, 2, 1, *range(3, len(split))]
    real = scope.node("Reshape", real, scope.constant("split", split, "int64"), part="split")
    real = scope.node("Transpose", real, part="order", perm=order)
    return scope.node("Reshape", real, scope.constant("shape", shape, "int64"), part="join")


def integer_bias(scope: Scope, value: str, codes: Array, kind: TensorType) -> str:
    """A bias in the unit of the sum (`OnnxGrids`); returns the real value."""
    assert kind.quantization is not None
    writer, scales = scope.writer, np.asarray(kind.quantization.scale, dtype=np.float32)
    stored, target = writer.constant(value, codes.astype(np.int32)), real_name(writer, value)
    return _dequantize(writer, f"{scope.op.name}/bias", stored, target, scales, 0, codes, False)


def clip_codes(writer: Writer, label: str, codes: str, reach: Range, dtype: str) -> str:
    """Codes limited to `reach`; onnxruntime can do so with 8 bits, but not with 16."""
    ends = [
        writer.constant(f"{label}.{part}", np.asarray(end, dtype=dtype))
        for part, end in (("lowest", reach.low), ("highest", reach.high))
    ]
    return writer.add("Clip", (codes, *ends), writer.fresh(f"{codes}.clipped"), f"{label}/limits")


def _store(writer: Writer, value: str, codes: Array, int4: bool) -> str:
    if int4:
        return writer.int4_constant(value, codes)
    if codes.dtype.itemsize == 2:
        writer.need(WIDE_OPSET)
    return writer.constant(value, codes)


def _dequantize(
    writer: Writer,
    node: str,
    stored: str,
    target: str,
    scales: Array,
    axis: int,
    codes: Array,
    int4: bool,
) -> str:
    """The zero points are zeros, but they are there: onnxruntime's optimiser expects them."""
    scales = scales.astype(np.float32)
    attributes: dict[str, Any] = {"axis": axis}
    if scales.size == 1:
        scales, attributes = scales.reshape(()), {}
    zeros = np.zeros(scales.shape, dtype=codes.dtype)
    make = writer.int4_constant if int4 else writer.constant
    operands = (
        stored,
        writer.constant(f"{target}.scale", scales),
        make(f"{target}.zero", zeros),
    )
    return writer.add("DequantizeLinear", operands, target, node, **attributes)
