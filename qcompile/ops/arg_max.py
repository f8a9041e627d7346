"""Index of the largest element along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgMax(Op):
    """Ties go to the first index, or to the last with `last`. The output is an unsigned integer."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if self.axis >= len(x):
            raise ShapeError(f"{self.label()}: axis {self.axis} does not exist in shape {list(x)}")
        middle = (1,) if self.keepdims else ()
        return x[: self.axis] + middle + x[self.axis + 1 :]
