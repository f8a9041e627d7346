"""Where in its window a maximum lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Op
from qcompile.ops.geometry import sliding_shape
from qcompile.types import Array, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPoolIndex(Op):
    """Input [1, C, *spatial], output [1, C, *spatial] of integers: the position in the window of
    the `MaxPool` of the same fields, counted along the last axis first, from 0. Of equal maxima it
    is the first. Positions outside of the input do not take part.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        spatial = sliding_shape(
            self,
            x,
            self.kernel,
            self.strides,
            self.dilations,
            self.pads_begin,
            self.pads_end,
            self.ceil_mode,
        )
        return (*x[:2], *spatial)

    def in_whole(self, found: Array, pooled: Shape) -> Array:
        """The indices as ONNX has them: int64 positions in a flattened tensor of shape `pooled`."""
        place = list(np.indices(found.shape)[:2])
        # Of one axis: numpy 2.4 is wrong where a last axis is 1.
        taps = np.unravel_index(found.astype(np.int64).reshape(-1), self.kernel)
        for axis, tap in enumerate(taps):
            origin = np.arange(found.shape[axis + 2]) * self.strides[axis] - self.pads_begin[axis]
            shape = [1] * found.ndim
            shape[axis + 2] = origin.size
            place.append(origin.reshape(shape) + tap.reshape(found.shape) * self.dilations[axis])
        flat = np.zeros(found.shape, np.int64)
        for at, size in zip(place, pooled, strict=True):
            flat = flat * size + at
        return flat
