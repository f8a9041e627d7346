"""Nearest-neighbour resize: every output position copies one input position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestResize(Op):
    """Input [1, C, *spatial]; output position p of an axis copies `sources[axis][p]`."""

    sources: tuple[tuple[int, ...], ...]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) != len(self.sources) + 2:
            raise ShapeError(
                f"{self.label()}: cannot resize shape {list(x)} along {len(self.sources)} axes"
            )
        for size, sources in zip(x[2:], self.sources, strict=True):
            if max(sources) >= size:
                raise ShapeError(
                    f"{self.label()}: was resolved for another input size than {list(x)}"
                )
        return (*x[:2], *(len(sources) for sources in self.sources))
