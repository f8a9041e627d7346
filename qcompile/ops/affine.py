"""Per-channel scale and shift: a batch norm (or a Mul and Add by constants) that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine(SumOp):
    """Inputs: x [1, C, ...], constant scale [C] and, before lowering, constant shift [C].

    Output scale[c] * x + shift[c], channels on axis 1. Lowered: the scale is an integer, the shift
    is in the epilogue.
    """

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) < 2 or any(shape != (x[1],) for shape in shapes[1:]):
            raise ShapeError(
                f"{self.label()}: parameters of shapes {[list(s) for s in shapes[1:]]} do not fit "
                f"the input of shape {list(x)}"
            )
        return x

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        scale = constants[1]
        assert scale is not None
        result = Range(0, 0)
        for weight in scale.tolist():
            result = result.union(types[0].codes.scaled(int(weight)))
        return result
