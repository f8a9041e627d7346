"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.ops.geometry import broadcast_shape
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Op):
    """Inputs: x of any shape and, if some elements never take part, a constant mask of 0 and 1 that
    broadcasts to it. `axis` is non-negative. Where the mask is 0, the output is 0 and x counts
    neither for the maximum nor for the sum; a row that is masked throughout is 0 throughout.

    Integer form (contract, rule 8): with d = max(x) - x along the axis, e = table[d] and
    S = sum(e), y = floor((e * levels + floor(S / 2)) / S), where `levels` is the highest output
    code. The table holds round(2**15 * exp(-d * scale)) for every difference that can occur; it is
    empty before lowering.
    """

    axis: int
    table: tuple[int, ...] = ()
    levels: int = 0

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        if broadcast_shape(self, shapes) != shapes[0]:
            raise ShapeError(
                f"{self.label()}: a mask of shape {list(shapes[1])} does not fit the input of "
                f"shape {list(shapes[0])}"
            )
        return shapes[0]
