"""Maximum over a sliding window; padded positions are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.ops.geometry import sliding_shape
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(Op):
    """Input [1, C, *spatial], output [1, C, *spatial]; the ceil_mode overhang is ignored too."""

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
