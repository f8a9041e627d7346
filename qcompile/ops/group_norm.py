"""Normalisation over groups of channels and all positions (instance norm: one channel a group)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True)
class NormWidths:
    """The stated widths of one integer normalisation.

    Over the N codes x of a group: S1 = sum(x), S2 = sum(x * x), V = N * S2 - S1 * S1,
    R = isqrt((V << 2 * root_bits) + epsilon) (floor), inverse = floor(2**inverse_bits / R), and for
    every element acc = floor((N * x - S1) * inverse / 2**drop_bits): the normalised value in units
    of 2**-(inverse_bits - root_bits - drop_bits).
    """

    root_bits: int
    epsilon: int
    inverse_bits: int
    drop_bits: int

    @property
    def fraction_bits(self) -> int:
        """Fractional bits of acc."""
        return self.inverse_bits - self.root_bits - self.drop_bits

    def reach(self, count: int) -> Range:
        """Of acc. |x - mean| / deviation is below sqrt(N), for one of N = `count` values all others
        being equal; one more unit covers the floors of root and division."""
        root = 1 << ((count.bit_length() + 1) // 2)
        largest = (root << self.fraction_bits) * 2 + 1
        return Range(-largest, largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm(SumOp):
    """Inputs: x [1, C, *spatial] and, before lowering, constant scale [C] and shift [C].

    Output scale[c] * (x - mean) / sqrt(variance + epsilon) + shift[c] over each group of C / groups
    neighbouring channels, biased variance. Lowered: scale and shift are in the epilogue.
    """

    groups: int
    epsilon: float
    widths: NormWidths | None = None

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) < 3 or x[1] % self.groups or any(shape != (x[1],) for shape in shapes[1:]):
            raise ShapeError(
                f"{self.label()}: {self.groups} groups and parameters of shapes "
                f"{[list(s) for s in shapes[1:]]} do not fit the input of shape {list(x)}"
            )
        return x

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        assert self.widths is not None
        return self.widths.reach(types[0].size // self.groups)
