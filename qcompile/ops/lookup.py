"""A table with one entry for each input code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Op):
    """Inputs: codes x of any shape, a constant table [T] or, per channel (axis 1), [C, T].

    Output y = table[x - lowest], `lowest` being the lowest input code. Stays in the integer stage.
    `function` names the operator that the table was made of (`Sigmoid`); it computes nothing.
    """

    lowest: int = 0
    function: str = ""

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, table = shapes
        if len(table) not in (1, 2) or (len(table) == 2 and (len(x) < 2 or table[0] != x[1])):
            raise ShapeError(
                f"{self.label()}: table of shape {list(table)} for input of shape {list(x)}"
            )
        return x
