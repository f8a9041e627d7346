"""How codes lie in an ONNX model: 8- or 16-bit integers, with a zero point where that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.exporter.writer import WIDE_OPSET
from qcompile.types import CodeLimits, IntType, Range, TensorType

INT8, UINT8 = Range(-128, 127), Range(0, 255)
INT16, UINT16 = Range(-32768, 32767), Range(0, 65535)


@dataclass(frozen=True, slots=True)
class Storage:
    """Codes are stored as `code + zero_point` in the numpy type `dtype`."""

    dtype: str
    range: Range
    zero_point: int = 0

    @property
    def is_wide(self) -> bool:
        """Quantized tensors of 16 bits exist from opset 21 on."""
        return self.dtype in ("uint16", "int16")

    def zero(self) -> Any:
        return np.asarray(self.zero_point, dtype=self.dtype)

    def holds_exactly(self, codes: Range) -> bool:
        """The integer type saturates just where the codes end."""
        shifted = codes + Range(self.zero_point, self.zero_point)
        return shifted == self.range


def code_limits(kind: TensorType) -> CodeLimits:
    """The codes of a value: of all channels, or of each."""
    if kind.limits is not None:
        return kind.limits
    element = kind.integer
    return CodeLimits((element.low,), (element.high,))


def storage_of(value: str, kind: TensorType, opset: int) -> Storage:
    """The smallest storage of a value's codes.

    From opset 21 on signed 8-bit codes are stored as uint8 with zero point 128: the optimiser of
    onnxruntime on x86 makes models of that opset with int8 activations invalid
    (https://github.com/microsoft/onnxruntime/issues/25526).

    Raises:
        UnsupportedError: the codes have more than 16 bits.
    """
    codes = kind.codes
    if UINT8.contains(codes):
        return Storage("uint8", UINT8)
    if INT8.contains(codes):
        return Storage("int8", INT8) if opset < WIDE_OPSET else Storage("uint8", UINT8, 128)
    if codes.high - codes.low <= UINT8.high:
        # The range of an imported uint8: its zero point brings it back into eight bits.
        return Storage("uint8", UINT8, -codes.low)
    for dtype, reach in (("uint16", UINT16), ("int16", INT16)):
        if reach.contains(codes):
            return Storage(dtype, reach)
    raise UnsupportedError(
        [Unsupported("value", value, f"has codes of type {kind.element}", "use at most 16 bits")],
        "ONNX export",
    )


def weight_storage(element: IntType) -> str | None:
    """The numpy type of weights' codes; None where they have more than 16 bits (powers of two)."""
    return f"int{8 if element.bits <= 8 else 16}" if element.bits <= 16 else None
