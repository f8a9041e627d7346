"""Elements back to where maxima were, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxUnpool(Op):
    """Inputs: x [1, C, *spatial] and the indices of a `MaxPoolIndex` of the same shape. Output
    [1, C, *spatial]: the shape that was pooled.

    An element goes to the position of its window that its index names; all others are 0 (code 0).
    Windows must not overlap. An index that names no position of the window,
    or one outside of the output, moves nothing.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    dilations: tuple[int, ...]
    spatial: tuple[int, ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, indices = shapes
        if x != indices or len(x) - 2 != len(self.spatial):
            raise ShapeError(
                f"{self.label()}: elements of shape {list(x)} and indices of shape {list(indices)} "
                f"do not fit {len(self.spatial)} spatial axes"
            )
        extents = zip(self.kernel, self.strides, self.dilations, strict=True)
        if any(k > 1 and d * (k - 1) + 1 > stride for k, stride, d in extents):
            raise ShapeError(
                f"{self.label()}: windows of {list(self.kernel)} overlap with strides "
                f"{list(self.strides)}; use strides of at least the window's size"
            )
        return (*x[:2], *self.spatial)
