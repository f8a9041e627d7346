"""The same elements in row-major order under another shape (also Flatten, Squeeze, Unsqueeze)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape(Op):
    """`shape` is the complete output shape: 0 and -1 are resolved at import."""

    shape: Shape

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        if math.prod(self.shape) != math.prod(shapes[0]):
            raise ShapeError(
                f"{self.label()}: shape {list(shapes[0])} cannot become {list(self.shape)}"
            )
        return self.shape
