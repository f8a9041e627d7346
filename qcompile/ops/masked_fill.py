"""A constant in place of some elements (Where with a constant condition, attention masks)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.ops.geometry import broadcast_shape
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedFill(Op):
    """Inputs: x of any shape, a constant mask of 0 and 1 that broadcasts to it. Output x where the
    mask is 1, else `value`.

    In front of a softmax it becomes the softmax's own mask (pass `mask-softmax`). Elsewhere `value`
    is finite, and its integer form is `code`, the nearest code of the input's type.
    """

    value: float
    code: int | None = None

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, mask = shapes
        if broadcast_shape(self, shapes) != x:
            raise ShapeError(
                f"{self.label()}: a mask of shape {list(mask)} does not fit the input of shape "
                f"{list(x)}"
            )
        return x
