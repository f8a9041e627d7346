"""Blocks of channels become blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthToSpace(Op):
    """Input [1, C * b * b, H, W], output [1, C, H * b, W * b].

    `column_major` is ONNX mode CRD (channel, block row, block column), else DCR.
    """

    block: int
    column_major: bool = False

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) != 4 or self.block < 1 or x[1] % (self.block * self.block):
            raise ShapeError(
                f"{self.label()}: block size {self.block} does not fit shape {list(x)}"
            )
        return (x[0], x[1] // self.block**2, x[2] * self.block, x[3] * self.block)
