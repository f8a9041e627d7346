"""Elements of one axis in another order, some of them repeated or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather(Op):
    """Index i of `axis` (non-negative) of the output is index `indices[i]` of the input."""

    axis: int
    indices: tuple[int, ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if not 0 <= self.axis < len(x) or not self.indices:
            raise ShapeError(f"{self.label()}: takes nothing along axis {self.axis} of {list(x)}")
        if min(self.indices) < 0 or max(self.indices) >= x[self.axis]:
            raise ShapeError(
                f"{self.label()}: an index lies outside of axis {self.axis} of shape {list(x)}"
            )
        return (*x[: self.axis], len(self.indices), *x[self.axis + 1 :])
