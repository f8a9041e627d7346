"""Mean over whole axes (GlobalAveragePool is the mean over the spatial axes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceMean(SumOp):
    """Input of any shape, output with the `axes` (ascending, non-negative) of size 1 or removed.

    The integer sum runs over codes; the divisor is in the epilogue.
    """

    axes: tuple[int, ...]
    keepdims: bool = True

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if not self.axes or max(self.axes) >= len(x):
            raise ShapeError(
                f"{self.label()}: axes {list(self.axes)} do not exist in shape {list(x)}"
            )
        if self.keepdims:
            return tuple(1 if axis in self.axes else size for axis, size in enumerate(x))
        return tuple(size for axis, size in enumerate(x) if axis not in self.axes)

    def channel_axis(self, rank: int) -> int:
        return 1 if rank > 1 else 0

    def count(self, shape: Shape) -> int:
        """How many elements one mean has."""
        return math.prod(shape[axis] for axis in self.axes)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        return types[0].codes.union(Range(0, 0)).scaled(self.count(types[0].shape))
