"""Product with a constant matrix (Gemm and MatMul of ONNX)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp, weighted_reach
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class MatMul(SumOp):
    """Inputs: x [..., K], constant weights [K, N], optional bias [N]. Output [..., N]."""

    def channel_axis(self, rank: int) -> int:
        return rank - 1

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, weights = shapes[0], shapes[1]
        if len(weights) != 2 or not x or x[-1] != weights[0]:
            raise ShapeError(
                f"{self.label()}: weights of shape {list(weights)} do not fit "
                f"the input of shape {list(x)}"
            )
        return (*x[:-1], weights[1])

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        weights = constants[1]
        assert weights is not None
        columns = weights.astype("int64").T
        return weighted_reach(
            columns.clip(min=0).sum(1), columns.clip(max=0).sum(1), types[0].codes
        )
