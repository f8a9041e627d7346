"""A regular part of a tensor (also crops, and each output of a Split)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(Op):
    """For every axis `sizes` elements from `starts` on, `steps` apart (which may be negative)."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) != len(self.starts):
            raise ShapeError(f"{self.label()}: {len(self.starts)} axes sliced of shape {list(x)}")
        for size, start, count, step in zip(x, self.starts, self.sizes, self.steps, strict=True):
            if count < 1 or not 0 <= start < size or not 0 <= start + (count - 1) * step < size:
                raise ShapeError(
                    f"{self.label()}: takes nothing, or more than there is, of shape {list(x)}"
                )
        return self.sizes
