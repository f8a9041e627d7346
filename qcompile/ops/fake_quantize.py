"""Rounding to the grid of a model that was quantised elsewhere (QuantizeLinear, QONNX Quant)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Op
from qcompile.types import (
    Array,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    Range,
    Rounding,
    Shape,
    TensorType,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeQuantize(Op):
    """y = scale * clamp(round(x / scale), low, high), real numbers on both sides.

    `low` and `high` are codes without zero point (contract, rule 1): a uint8 tensor with zero point
    37 has -37..218. `binary` leaves only -1 and 1, zero counting as positive. Exists up to
    `AbsorbQuantizers`, which gives the grid to the type of the value instead.
    """

    scale: float
    low: int
    high: int
    rounding: Rounding = Rounding.HALF_EVEN
    binary: bool = False

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]

    def annotated(self, kind: TensorType) -> TensorType:
        """The type of a float value that is rounded to this grid."""
        codes = Range(self.low, self.high)
        levels = 2 if self.binary else self.high - self.low + 1
        is_ternary = (self.low, self.high) == (-1, 1) and self.rounding is Rounding.HALF_EVEN
        book = CodebookKind.TERNARY if is_ternary else CodebookKind.UNIFORM
        return TensorType(
            kind.shape,
            kind.element,
            Quantization((self.scale,), imported=self.rounding),
            Codebook(CodebookKind.BINARY if self.binary else book, levels),
            CodeLimits((codes.low,), (codes.high,)),
        )


def integer_type(kind: TensorType) -> TensorType:
    """The type of the codes of an annotated float value: the smallest element that holds them,
    and limits only where the element holds more."""
    assert kind.limits is not None
    codes = kind.limits.range
    element = IntType.holding(codes)
    if codes.low == element.low + 1 and element.signed:
        element = IntType(element.bits, narrow=True)
    limits = None if element.range == codes else kind.limits
    return TensorType(kind.shape, element, kind.quantization, kind.codebook, limits)


def rounded(steps: Array, rounding: Rounding) -> Array:
    """Whole numbers in the dtype of `steps`, as QONNX rounds: HALF_UP and UP go away from zero,
    HALF_DOWN and DOWN towards it."""
    return _ROUNDINGS[rounding](steps)


def _up(x: Array) -> Array:
    return np.asarray(np.copysign(np.ceil(np.abs(x)), x))


def _half_up(x: Array) -> Array:
    return np.asarray(np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x))


def _half_down(x: Array) -> Array:
    return np.asarray(np.copysign(np.ceil(np.abs(x) - x.dtype.type(0.5)), x))


_ROUNDINGS: Mapping[Rounding, Callable[[Array], Array]] = {
    Rounding.HALF_EVEN: np.rint,
    Rounding.HALF_UP: _half_up,
    Rounding.HALF_DOWN: _half_down,
    Rounding.UP: _up,
    Rounding.DOWN: np.trunc,
    Rounding.CEIL: np.ceil,
    Rounding.FLOOR: np.floor,
}
