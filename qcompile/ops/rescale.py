"""A tensor passed through an activation and a new quantization: the visible requantise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale(SumOp):
    """Input x of any shape (channels on axis 1), output activation(x). The sum is x itself."""

    def channel_axis(self, rank: int) -> int:
        return 1 if rank > 1 else 0

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        return types[0].codes.union(Range(0, 0))
