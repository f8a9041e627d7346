"""What the C back end returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.layout import Layout


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Constant bytes of one operator in the object file."""

    weights: int
    epilogue: int
    tables: int

    @property
    def total(self) -> int:
        return self.weights + self.epilogue + self.tables

    def plus(self, other: LayerBytes) -> LayerBytes:
        return LayerBytes(
            self.weights + other.weights, self.epilogue + other.epilogue, self.tables + other.tables
        )


@dataclass(frozen=True)
class CProgram:
    """The emitted files and what they cost.

    Attributes:
        artifacts: the files.
        arena_bytes: memory the caller supplies to the release build.
        constant_bytes: summed sizes of all `static const` objects of a portable build; SIMD kernels
            add descriptors and start values, some bytes a filter.
        layer_bytes: operator name -> its part of `constant_bytes`.
        layout: names, offsets and placements, for verification.
        multiplications_again: those beyond the network's, because rows are computed again.
    """

    artifacts: Artifacts
    arena_bytes: int
    constant_bytes: int
    layer_bytes: Mapping[str, LayerBytes]
    layout: Layout = field(repr=False)
    multiplications_again: int = 0
