"""Where each buffer lies in the arena, by lifetimes.

Before: buffers with sizes and the steps that use them.    After: buffer -> offset, arena size.

    a [0..1] 64 kB, b [1..2] 64 kB, c [2..3] 32 kB   ->   a at 0, b at 64 k, c at 0: 128 kB, not 160
    the same where b may be written over a            ->   a and b at 0, c at 64 k: 96 kB
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buffer:
    """`size` bytes in use from step `first` to step `last`, both included.

    `over` names buffers whose memory it may take where their last step is its first: that step
    reads each element before it writes to its place.
    """

    name: str
    size: int
    first: int
    last: int
    over: tuple[str, ...] = ()

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
        """Places `buffers`; the result does not depend on their order.

        Buffers are written over others only if the whole becomes smaller by it.
        """
        apart = self._place(buffers)
        hosts = _hosts(buffers)
        if not hosts:
            return apart
        offsets = dict(self._place(_merged(buffers, hosts)).offsets)
        for name, host in hosts.items():
            offsets[name] = offsets[host]
        sizes = (self._end(offsets[buffer.name], buffer) for buffer in buffers)
        together = BufferPlan(offsets, max(sizes))
        return together if together.size < apart.size else apart

    def _place(self, buffers: Sequence[Buffer]) -> BufferPlan:
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


def _hosts(buffers: Sequence[Buffer]) -> dict[str, str]:
    """Buffer -> the first of the chain of buffers that it is written over."""
    known = {buffer.name: buffer for buffer in buffers}
    taken: set[str] = set()
    hosts: dict[str, str] = {}
    for buffer in sorted(buffers, key=lambda item: (item.first, item.name)):
        for name in buffer.over:
            below = known.get(name)
            if below is None or name in taken or below.last != buffer.first:
                continue
            if below.first < buffer.first and buffer.size <= below.size:
                taken.add(name)
                hosts[buffer.name] = hosts.get(name, name)
                break
    return hosts


def _merged(buffers: Sequence[Buffer], hosts: Mapping[str, str]) -> list[Buffer]:
    """Buffers with those written over them as one, as long-lived as both."""
    last = {buffer.name: buffer.last for buffer in buffers}
    for name, host in hosts.items():
        last[host] = max(last[host], last[name])
    return [
        dataclasses.replace(buffer, last=last[buffer.name])
        for buffer in buffers
        if buffer.name not in hosts
    ]
