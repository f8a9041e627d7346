"""QDQ and QCDQ: QuantizeLinear and DequantizeLinear around float operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.exporter.dialect import clip_floats, is_binary, real_name, scale_of, take_sign
from qcompile.exporter.qdq_constants import clip_codes, grouped_weights, integer_bias, weights
from qcompile.exporter.scope import Scope
from qcompile.exporter.storage import code_limits, storage_of, weight_storage
from qcompile.exporter.writer import WIDE_OPSET, Writer
from qcompile.ops import ConvTranspose
from qcompile.types import Array, Range, TensorType


@dataclass(frozen=True)
class Qdq:
    """Codes narrower than their 8 or 16 bits are limited by a Clip.

    QDQ has it on the real number before QuantizeLinear, so that every QuantizeLinear is followed by
    its DequantizeLinear, as tools that look for such pairs expect. QCDQ (`clips_codes`) has it on
    the codes between the two, and on weights, as Brevitas writes it. With `int4` weights of at most
    4 bits are stored as INT4.
    """

    name: ClassVar[str] = "qdq"
    quantizes_moves: ClassVar[bool] = True
    clips_codes: ClassVar[bool] = False
    int4: bool = False

    def quantize(
        self,
        writer: Writer,
        label: str,
        real: str,
        target: str,
        kind: TensorType,
        limited: bool = False,
    ) -> None:
        """Real -> QuantizeLinear -> codes -> DequantizeLinear -> real."""
        storage = storage_of(target, kind, writer.opset)
        limits = code_limits(kind)
        saturates = limited or (limits.is_per_tensor and storage.holds_exactly(limits.range))
        if is_binary(kind) and not limited:
            real, saturates = take_sign(writer, label, real, kind), True
        clips_codes = self.clips_codes and limits.is_per_tensor and not storage.is_wide
        if not saturates and not clips_codes:
            real, saturates = clip_floats(writer, label, real, kind), True
        if storage.is_wide:
            writer.need(WIDE_OPSET)
        scale = writer.constant(f"{target}.scale", np.asarray(scale_of(kind), dtype=np.float32))
        zero = writer.constant(f"{target}.zero", storage.zero())
        codes = writer.add(
            "QuantizeLinear",
            (real, scale, zero),
            writer.fresh(f"{target}.codes"),
            f"{label}/quantize",
        )
        if not saturates:
            reach = limits.range + Range(storage.zero_point, storage.zero_point)
            codes = clip_codes(writer, label, codes, reach, storage.dtype)
        writer.add("DequantizeLinear", (codes, scale, zero), target, f"{label}/dequantize")

    def weights(self, scope: Scope, value: str, codes: Array, kind: TensorType) -> str:
        """Integer codes in the file, and a DequantizeLinear with a scale for each channel."""
        assert kind.quantization is not None
        dtype = weight_storage(kind.integer)
        if dtype is None:
            # Powers of two over a wide range: float32 holds them exactly.
            real = codes.astype(np.float32) * kind.quantization.factors(codes.shape)
            return scope.writer.constant(real_name(scope.writer, value), real)
        in_groups = isinstance(scope.op, ConvTranspose) and scope.op.groups > 1
        if in_groups and not kind.quantization.is_per_tensor:
            return grouped_weights(scope, value, codes, kind, self.int4)
        return weights(scope, value, codes.astype(dtype), kind, self.int4, self.clips_codes)

    def bias(self, scope: Scope, value: str, data: Array, kind: TensorType) -> str:
        """int32 where it counts in the unit of the sum, which lets onnxruntime compute the whole
        layer in integers; otherwise float32."""
        if kind.is_float:
            return scope.writer.constant(value, data.astype(np.float32))
        return integer_bias(scope, value, data, kind)


class Qcdq(Qdq):
    """QDQ with the width of narrow codes said by a Clip of the codes (Brevitas)."""

    name: ClassVar[str] = "qcdq"
    quantizes_moves: ClassVar[bool] = False
    clips_codes: ClassVar[bool] = True
