"""Convolution (cross-correlation) over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.geometry import sliding_shape
from qcompile.ops.sum_op import SumOp, weighted_reach
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(SumOp):
    """Inputs: x [1, C, *spatial], constant weights [M, C / groups, *kernel], optional bias [M].

    Output [1, M, *spatial]. Padding is zero (code 0).
    """

    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, weights = shapes[0], shapes[1]
        if len(weights) != len(x) or weights[1] * self.groups != x[1] or weights[0] % self.groups:
            raise ShapeError(
                f"{self.label()}: weights of shape {list(weights)} with {self.groups} group(s) "
                f"do not fit the input of shape {list(x)}; check the model or --input-shape"
            )
        spatial = sliding_shape(
            self, x, weights[2:], self.strides, self.dilations, self.pads_begin, self.pads_end
        )
        return (x[0], weights[0], *spatial)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        weights = constants[1]
        assert weights is not None
        rows = weights.reshape(weights.shape[0], -1).astype(
            object if weights.dtype == object else "int64"
        )
        return weighted_reach(rows.clip(min=0).sum(1), rows.clip(max=0).sum(1), types[0].codes)
