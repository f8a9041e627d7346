"""Where each buffer lies in the arena, by lifetimes.

Before: buffers with sizes and the steps that use them.    After: buffer -> offset, arena size.

    a [0..1] 64 kB, b [1..2] 64 kB, c [2..3] 32 kB   ->   a at 0, b at 64 k, c at 0: 128 kB, not 160
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buffer:
    """`size` bytes in use from step `first` to step `last`, both included."""

    name: str
    size: int
    first: int
    last: int

    def overlaps(self, other: Buffer) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Byte offset of every buffer, and the bytes they take altogether."""

    offsets: Mapping[str, int]
    size: int


@dataclass(frozen=True)
class PlanBuffers:
    """Greedy by size, each buffer into the tightest gap that its lifetime leaves.

    Attributes:
        alignment: every offset is a multiple of it (bytes).
    """

    alignment: int = 16

    def run(self, buffers: Sequence[Buffer]) -> BufferPlan:
        """Places `buffers`; the result does not depend on their order."""
        placed: list[tuple[int, Buffer]] = []
        for buffer in sorted(buffers, key=lambda item: (-item.size, item.first, item.name)):
            busy = sorted(
                (offset, self._end(offset, other))
                for offset, other in placed
                if buffer.overlaps(other)
            )
            placed.append((self._best_gap(busy, buffer.size), buffer))
        size = max((self._end(offset, buffer) for offset, buffer in placed), default=0)
        return BufferPlan({buffer.name: offset for offset, buffer in placed}, size)

    def _end(self, offset: int, buffer: Buffer) -> int:
        return -(-(offset + buffer.size) // self.alignment) * self.alignment

    @staticmethod
    def _best_gap(busy: Sequence[tuple[int, int]], size: int) -> int:
        """Start of the smallest gap between `busy` intervals that holds `size` bytes."""
        best: tuple[int, int] | None = None
        position = 0
        for start, end in busy:
            gap = start - position
            if gap >= size and (best is None or gap < best[0]):
                best = (gap, position)
            position = max(position, end)
        return position if best is None else best[1]
