"""QONNX: the Quant and BipolarQuant nodes of FINN, hls4ml and Brevitas.

Definition: https://github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.exporter.dialect import clip_floats, is_binary, real_name, scale_of
from qcompile.exporter.scope import Scope, real_numbers
from qcompile.exporter.storage import code_limits
from qcompile.exporter.writer import Writer
from qcompile.types import Array, IntType, TensorType

DOMAIN = "qonnx.custom_op.general"
ROUNDING = "ROUND"
"""Half to even: the mode that every reader of QONNX has."""


@dataclass(frozen=True)
class Qonnx:
    """Everything is float32; a Quant node says scale, width and sign, a BipolarQuant the scale."""

    name: ClassVar[str] = "qonnx"
    quantizes_moves: ClassVar[bool] = False

    def quantize(
        self,
        writer: Writer,
        label: str,
        real: str,
        target: str,
        kind: TensorType,
        limited: bool = False,
    ) -> None:
        """Real -> Quant -> real."""
        node = f"{label}/quantize"
        scale = np.asarray(scale_of(kind), dtype=np.float32)
        if is_binary(kind):
            _bipolar(writer, node, real, target, scale)
            return
        element, zero = kind.integer, 0
        if kind.limits is not None:
            limits = code_limits(kind)
            unsigned = IntType((limits.range.high - limits.range.low).bit_length(), signed=False)
            if limits.is_per_tensor and limits.range.high - limits.range.low == unsigned.high:
                element, zero = unsigned, -limits.range.low
            else:
                real = clip_floats(writer, label, real, kind)
        _quant(writer, node, real, target, scale, element, zero)

    def weights(self, scope: Scope, value: str, codes: Array, kind: TensorType) -> str:
        """Float weights that lie on their grid, and the Quant that says which grid it is."""
        assert kind.quantization is not None
        writer, node = scope.writer, f"{scope.op.name}/weights"
        scale = kind.quantization.factors(codes.shape)
        if scale.size == 1:
            scale = scale.reshape(())
        real = writer.constant(value, codes.astype(np.float32) * scale)
        target = real_name(writer, value)
        if is_binary(kind):
            return _bipolar(writer, node, real, target, scale)
        return _quant(writer, node, real, target, scale, kind.integer, 0)

    def bias(self, scope: Scope, value: str, data: Array, kind: TensorType) -> str:
        """Its real numbers."""
        return scope.writer.constant(value, real_numbers(data, kind))


def _quant(
    writer: Writer,
    node: str,
    real: str,
    target: str,
    scale: Array,
    element: IntType,
    zero_point: int,
) -> str:
    constants = [
        writer.constant(f"{target}.{part}", np.asarray(data, dtype=np.float32))
        for part, data in (("scale", scale), ("zero", zero_point), ("bits", element.bits))
    ]
    return writer.add(
        "Quant",
        (real, *constants),
        target,
        node,
        domain=DOMAIN,
        signed=int(element.signed),
        narrow=int(element.narrow),
        rounding_mode=ROUNDING,
    )


def _bipolar(writer: Writer, node: str, real: str, target: str, scale: Array) -> str:
    constant = writer.constant(f"{target}.scale", scale)
    return writer.add("BipolarQuant", (real, constant), target, node, domain=DOMAIN)
