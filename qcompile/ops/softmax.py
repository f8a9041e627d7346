"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Op):
    """Input of any shape; `axis` is non-negative.

    Integer form (contract, rule 8): with d = max(x) - x along the axis, e = table[d] and
    S = sum(e), y = floor((e * levels + floor(S / 2)) / S), where `levels` is the highest output
    code. The table holds round(2**15 * exp(-d * scale)) for every difference that can occur; it is
    empty before lowering.
    """

    axis: int
    table: tuple[int, ...] = ()
    levels: int = 0

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]
