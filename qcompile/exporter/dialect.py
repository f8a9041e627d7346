"""What the three ways of writing quantized tensors have in common."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from qcompile.exporter.scope import Scope
from qcompile.exporter.storage import code_limits
from qcompile.exporter.writer import Writer
from qcompile.types import Array, CodebookKind, TensorType, per_channel


class Dialect(Protocol):
    """QDQ, QCDQ or QONNX.

    `quantizes_moves`: operators that only copy codes are followed by quantizers, too.
    """

    name: ClassVar[str]
    quantizes_moves: ClassVar[bool]

    def quantize(
        self,
        writer: Writer,
        label: str,
        real: str,
        target: str,
        kind: TensorType,
        limited: bool = False,
    ) -> None:
        """Adds the nodes that round `real` to the codes of `kind`; `target` is the result as a
        real number again. `label` is the operator's name. `limited`: nothing is beyond the lowest
        and highest code."""
        ...

    def weights(self, scope: Scope, value: str, codes: Array, kind: TensorType) -> str:
        """Adds a constant of integer codes; returns its real value."""
        ...

    def bias(self, scope: Scope, value: str, data: Array, kind: TensorType) -> str:
        """Adds the bias of an operator; returns its real value."""
        ...


def is_binary(kind: TensorType) -> bool:
    """The codes are -1 and 1."""
    return kind.codebook is not None and kind.codebook.kind is CodebookKind.BINARY


def scale_of(kind: TensorType) -> float:
    """The per-tensor scale of a value."""
    assert kind.quantization is not None
    return kind.quantization.scale[0]


def real_name(writer: Writer, value: str) -> str:
    """A name for the real value of weights: the model's own, without our suffix."""
    return writer.fresh(value.removesuffix(".codes"))


def clip_floats(writer: Writer, label: str, real: str, kind: TensorType) -> str:
    """`real` limited to what the lowest and highest codes stand for, by channel if need be."""
    limits, scale = code_limits(kind), scale_of(kind)
    if limits.is_per_tensor:
        low, high = limits.low[0] * scale, limits.high[0] * scale
        ends = [
            writer.constant(f"{label}.{part}", np.asarray(value, dtype=np.float32))
            for part, value in (("lowest", low), ("highest", high))
        ]
        return writer.add("Clip", (real, *ends), writer.fresh(f"{real}.clipped"), f"{label}/limits")
    for operator, part, codes in (("Max", "lowest", limits.low), ("Min", "highest", limits.high)):
        by_channel = per_channel([code * scale for code in codes], "float32", 1, kind.rank)
        edge = writer.constant(f"{label}.{part}", by_channel)
        name = f"{label}/{part}"
        real = writer.add(operator, (real, edge), writer.fresh(f"{real}.{part}"), name)
    return real


def take_sign(writer: Writer, label: str, real: str, kind: TensorType) -> str:
    """Plus or minus the scale, zero counting as positive: what a binary activation is."""
    scale = np.float32(scale_of(kind))
    zero, plus, minus = (
        writer.constant(f"{label}.{part}", np.asarray(value, dtype=np.float32))
        for part, value in (("zero", 0), ("plus", scale), ("minus", -scale))
    )
    is_plus = writer.add(
        "GreaterOrEqual", (real, zero), writer.fresh(f"{real}.positive"), f"{label}/positive"
    )
    return writer.add(
        "Where", (is_plus, plus, minus), writer.fresh(f"{real}.sign"), f"{label}/sign"
    )
