"""Codes to real numbers: float outputs of the model and the near end of a float island."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Dequantize(Op):
    """y = (float32)code * scale: one float32 multiplication (contract, rule 9).

    The scale is the float32 nearest to the input's per-tensor scale.
    """

    scale: float

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]
