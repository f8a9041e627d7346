"""How codes lie in an ONNX model: 8- or 16-bit integers, with a zero point where that helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.types import CodeLimits, IntType, Range, TensorType

INT8, UINT8 = Range(-128, 127), Range(0, 255)
_CHOICES: tuple[tuple[str, Range], ...] = (
    ("uint8", UINT8),
    ("int8", INT8),
    ("uint16", Range(0, 65535)),
    ("int16", Range(-32768, 32767)),
)


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


def storage_of(where: str, node: str, kind: TensorType) -> Storage:
    """The smallest storage of a value's codes.

    Raises:
        UnsupportedError: the codes have more than 16 bits.
    """
    codes = kind.codes
    signed_first = sorted(_CHOICES, key=lambda item: ("16" in item[0], _sign_differs(item, kind)))
    for dtype, reach in signed_first:
        if reach.contains(codes):
            return Storage(dtype, reach)
        if "16" not in dtype and codes.high - codes.low <= 255:
            # The range of an imported uint8: the zero point brings it back into eight bits.
            return Storage("uint8", UINT8, -codes.low)
    raise UnsupportedError(
        [Unsupported(where, node, f"codes of type {kind.element}", "use at most 16 --abits")],
        "ONNX export",
    )


def _sign_differs(item: tuple[str, Range], kind: TensorType) -> bool:
    return (item[1].low < 0) != kind.integer.signed


def weight_storage(element: IntType) -> str | None:
    """The numpy type of weights' codes; None where they have more than 16 bits (powers of two)."""
    return f"int{8 if element.bits <= 8 else 16}" if element.bits <= 16 else None
