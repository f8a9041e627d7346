"""Sum and difference of two tensors, with numpy broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.ops.geometry import broadcast_shape
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(SumOp):
    """Inputs a, b (either may be a constant). Output weights[0] * a + weights[1] * b.

    Before lowering the weights are (1, 1) or, for a difference, (1, -1); lowered they are integers
    that bring both inputs to one scale.
    """

    weights: tuple[int, int] = (1, 1)

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return broadcast_shape(self, shapes)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        zero = Range(0, 0)
        first = types[0].codes.scaled(self.weights[0]).union(zero)
        return first + types[1].codes.scaled(self.weights[1]).union(zero)
