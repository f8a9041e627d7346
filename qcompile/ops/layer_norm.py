"""Normalisation along one axis, at each position by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.group_norm import NormWidths
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm(SumOp):
    """Inputs: x of any shape and, before lowering, constant scale [N] and shift [N], N being the
    size of `axis` (1 or the last).

    Output scale[n] * (x - mean) / sqrt(variance + epsilon) + shift[n], mean and biased variance
    taken along `axis`. Integer form: that of `NormWidths`, a row being a group.
    """

    axis: int
    epsilon: float
    widths: NormWidths | None = None

    def channel_axis(self, rank: int) -> int:
        return self.axis

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if (
            not 0 <= self.axis < len(x)
            or self.axis not in (1, len(x) - 1)
            or any(shape != (x[self.axis],) for shape in shapes[1:])
        ):
            raise ShapeError(
                f"{self.label()}: axis {self.axis} and parameters of shapes "
                f"{[list(s) for s in shapes[1:]]} do not fit the input of shape {list(x)}"
            )
        return x

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        """As for `GroupNorm`."""
        assert self.widths is not None
        return self.widths.reach(types[0].shape[self.axis])
