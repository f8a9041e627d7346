"""Concatenation along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(Op):
    """Any number of inputs that agree except along `axis` (non-negative)."""

    axis: int

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        first = shapes[0]
        if self.axis >= len(first):
            raise ShapeError(
                f"{self.label()}: axis {self.axis} does not exist in shape {list(first)}"
            )
        for shape in shapes[1:]:
            if len(shape) != len(first) or any(
                a != b
                for axis, (a, b) in enumerate(zip(shape, first, strict=True))
                if axis != self.axis
            ):
                raise ShapeError(
                    f"{self.label()}: cannot join shapes {[list(s) for s in shapes]} "
                    f"along axis {self.axis}; "
                    f"check --input-shape (sizes usually must divide by 2**depth)"
                )
        joined = sum(shape[self.axis] for shape in shapes)
        return (*first[: self.axis], joined, *first[self.axis + 1 :])
