"""Permutation of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Transpose(Op):
    """Output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        if sorted(self.permutation) != list(range(len(shapes[0]))):
            raise ShapeError(
                f"{self.label()}: permutation {list(self.permutation)} does not fit "
                f"shape {list(shapes[0])}"
            )
        return tuple(shapes[0][axis] for axis in self.permutation)
