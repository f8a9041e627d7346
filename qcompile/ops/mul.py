"""Product of two tensors, with numpy broadcasting (attention gates)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.ops.geometry import broadcast_shape
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Mul(SumOp):
    """Inputs a, b (either may be a constant). Output a * b: a one-term sum."""

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return broadcast_shape(self, shapes)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        return (types[0].codes * types[1].codes).union(Range(0, 0))
