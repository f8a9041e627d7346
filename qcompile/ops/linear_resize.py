"""Linear interpolation along the spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType

MAX_COMMON_BITS = 12
"""Weights whose exact common denominator needs more bits are rounded to multiples of 2**-12."""


@dataclass(frozen=True, slots=True)
class LinearTaps:
    """For one axis: (1 - weights[p]) * x[first[p]] + weights[p] * x[second[p]] at position p."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    weights: tuple[Fraction, ...]

    def common(self) -> int:
        """Denominator of the integer weights of this axis (contract, rule 7)."""
        exact = math.lcm(*(weight.denominator for weight in self.weights))
        return exact if exact.bit_length() <= MAX_COMMON_BITS else 1 << MAX_COMMON_BITS

    def integer_weights(self) -> tuple[tuple[int, int], ...]:
        """For each output position the weights of its two taps; they sum to `common()`."""
        common = self.common()
        second = [math.floor(weight * common + Fraction(1, 2)) for weight in self.weights]
        return tuple((common - weight, weight) for weight in second)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearResize(SumOp):
    """Input [1, C, *spatial], output [1, C, *len(taps)]: one `LinearTaps` for each spatial axis.

    Integer form: the sum over all axes at once with the products of the integer weights; nothing is
    rounded between the axes. The epilogue divides by `common()`.
    """

    taps: tuple[LinearTaps, ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) != len(self.taps) + 2:
            raise ShapeError(
                f"{self.label()}: cannot resize shape {list(x)} along {len(self.taps)} axes"
            )
        for size, taps in zip(x[2:], self.taps, strict=True):
            if max(taps.second) >= size or max(taps.first) >= size:
                raise ShapeError(
                    f"{self.label()}: was resolved for another input size than {list(x)}"
                )
        return (*x[:2], *(len(taps.first) for taps in self.taps))

    def common(self) -> int:
        return math.prod(taps.common() for taps in self.taps)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        return types[0].codes.union(Range(0, 0)).scaled(self.common())
