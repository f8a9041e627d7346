"""Quotient of two computed tensors (division by a constant becomes `Mul` or `Affine` at import)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.ops.geometry import broadcast_shape
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Div(SumOp):
    """Inputs a, b. Output a / b with numpy broadcasting.

    Integer form (contract, rule 8): acc = floor(a * 2**fraction_bits / b), exact for any signs.
    Where b is code 0 the quotient is a * 2**fraction_bits (as if b were 1).
    """

    fraction_bits: int = 0

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return broadcast_shape(self, shapes)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        largest = types[0].codes.magnitude << self.fraction_bits
        return Range(-largest, largest)
