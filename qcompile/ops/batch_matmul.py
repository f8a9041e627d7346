"""Product of two computed matrices, or of batches of them (the two products of attention)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.geometry import broadcast_shape
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMatMul(SumOp):
    """Inputs: a [..., M, K], b [..., K, N]; axes before the last two broadcast. Either may be a
    constant. Output [..., M, N].

    Integer form: the exact sum of a * b over K. `mass`, if stated, is proven: in no row of `a` do
    the magnitudes of the K codes add up to more. Rows of a softmax add up to little more than its
    highest code, which keeps sums over many keys within 32 bits.
    """

    mass: int | None = None

    def channel_axis(self, rank: int) -> int:
        return rank - 1

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        a, b = shapes
        if min(len(a), len(b)) < 2 or a[-1] != b[-2]:
            raise ShapeError(
                f"{self.label()}: matrices of shapes {list(a)} and {list(b)} cannot be multiplied"
            )
        return (*broadcast_shape(self, [a[:-2], b[:-2]]), a[-2], b[-1])

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        zero = Range(0, 0)
        a, b = types[0].codes.union(zero), types[1].codes.union(zero)
        result = (a * b).scaled(types[0].shape[-1])
        if self.mass is None:
            return result
        # A negative code of a turns the sign of b.
        signed = b if a.low == 0 else Range(-b.magnitude, b.magnitude)
        least = signed.scaled(self.mass)
        return Range(max(result.low, least.low), min(result.high, least.high))
