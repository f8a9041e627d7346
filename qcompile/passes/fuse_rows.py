"""Which operators run together row by row, so that of most tensors only a few rows exist.

Before: conv1, conv2, pool one after the other.    After: one group; lines between them.

    conv1 -> 256 rows -> conv2 -> 256 rows -> pool    becomes    3 rows, 2 rows

In a group always the last operator goes on that can, so every row is used as soon as possible and
its memory soon becomes the next row's: a ring of rows. A skip connection inside a group holds only
the rows between its two ends. What another group reads is held whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.passes.row_reach import Reach


@dataclass(frozen=True, slots=True)
class RowOp:
    """An operator as this pass sees it.

    Attributes:
        output: the value that it writes.
        rows: of the output; 1 for an operator that does not go by rows.
        row_bytes: of the output.
        sources: what a row needs; None if the operator does not go by rows.
        reads: every activation that it reads.
        scratch: bytes of memory that it needs while it computes a row.
    """

    output: str
    rows: int
    row_bytes: int
    sources: tuple[Reach, ...] | None
    reads: tuple[str, ...]
    scratch: int

    @property
    def size(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Groups of neighbouring operators as (first, end), and how many rows of a value are held."""

    groups: tuple[tuple[int, int], ...]
    rings: Mapping[str, int]


@dataclass(frozen=True)
class FuseRows:
    """Cuts the sequence of operators into groups so that the largest need of memory is smallest.

    Attributes:
        public: values in the caller's memory, which cost nothing here.
    """

    public: frozenset[str]

    def run(self, ops: Sequence[RowOp]) -> RowPlan:
        """The best of all ways to cut, by dynamic programming over the places to cut."""
        count = len(ops)
        last = {value: index for index, op in enumerate(ops) for value in op.reads}
        born = {op.output: index for index, op in enumerate(ops)}
        best = [0] + [1 << 62] * count
        cut = [0] * (count + 1)
        for end in range(1, count + 1):
            for first in range(end):
                if best[first] >= best[end] or not self._joins(ops, first, end):
                    continue
                kept = self._kept(ops, born, last, first, end)
                if kept >= best[end]:
                    continue
                need = max(best[first], kept + self._inside(ops, last, first, end))
                if need < best[end]:
                    best[end], cut[end] = need, first
        groups = []
        end = count
        while end:
            groups.append((cut[end], end))
            end = cut[end]
        rings: dict[str, int] = {}
        for first, end in groups:
            rings |= self._rings(ops, last, first, end)
        return RowPlan(tuple(reversed(groups)), rings)

    @staticmethod
    def _joins(ops: Sequence[RowOp], first: int, end: int) -> bool:
        """An operator that does not go by rows stays alone."""
        return end - first == 1 or all(op.sources is not None for op in ops[first:end])

    def _kept(
        self,
        ops: Sequence[RowOp],
        born: Mapping[str, int],
        last: Mapping[str, int],
        first: int,
        end: int,
    ) -> int:
        """Bytes of what lives on from before the group, and of its largest scratch memory."""
        through = sum(
            ops[index].size
            for value, index in born.items()
            if index < first <= last.get(value, index) and value not in self.public
        )
        return through + max(op.scratch for op in ops[first:end])

    def _inside(self, ops: Sequence[RowOp], last: Mapping[str, int], first: int, end: int) -> int:
        """Bytes of what the group writes."""
        rings = self._rings(ops, last, first, end)
        return sum(
            rings[op.output] * op.row_bytes for op in ops[first:end] if op.output not in self.public
        )

    def _rings(
        self, ops: Sequence[RowOp], last: Mapping[str, int], first: int, end: int
    ) -> dict[str, int]:
        """Rows held of every value of a group: found by running it without values."""
        group = ops[first:end]
        whole = {
            op.output: op.rows
            for op in group
            if op.output in self.public or last.get(op.output, -1) >= end or op.sources is None
        }
        if len(group) == 1:
            return {group[0].output: group[0].rows}
        return run_group(group) | whole


def run_group(group: Sequence[RowOp]) -> dict[str, int]:
    """The most rows of each output that a later row needs at the same time, in the order in which
    the emitted program computes rows: always the last operator that can."""
    index = {op.output: position for position, op in enumerate(group)}
    sources = [
        [(index[reach.source], reach) for reach in op.sources or () if reach.source in index]
        for op in group
    ]
    readers: list[list[tuple[int, Reach]]] = [[] for _ in group]
    for position, found in enumerate(sources):
        for source, reach in found:
            readers[source].append((position, reach))
    done = [0] * len(group)
    rings = [1] * len(group)

    def ready(position: int) -> bool:
        row = done[position]
        return row < group[position].rows and all(
            reach.complete(row, done[source]) for source, reach in sources[position]
        )

    waiting = [-position for position in range(len(group)) if ready(position)]
    heapq.heapify(waiting)
    while waiting:
        position = -heapq.heappop(waiting)
        if not ready(position):
            continue
        row = done[position]
        lowest = row
        for reader, reach in readers[position]:
            if done[reader] < group[reader].rows:
                lowest = min(lowest, reach.lowest[done[reader]])
        rings[position] = max(rings[position], row - lowest + 1)
        done[position] += 1
        for candidate in (position, *(reader for reader, _ in readers[position])):
            if ready(candidate):
                heapq.heappush(waiting, -candidate)
    return {op.output: rings[position] for position, op in enumerate(group)}


__all__ = ["FuseRows", "RowOp", "RowPlan", "run_group"]
