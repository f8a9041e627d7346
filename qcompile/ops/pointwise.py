"""Base of the scalar functions that become look-up tables (contract, rule 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.types import Array, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise(Op):
    """y = function(x) for each element; lowered to `Lookup`."""

    def function(self, x: Array) -> Array:
        """The real function, in the dtype of the float array `x`."""
        raise NotImplementedError(self.kind)

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]
