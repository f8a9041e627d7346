"""Which operators run together row by row, so that of most tensors only a few rows exist.

Before: conv1, conv2, pool one after the other.    After: one group; lines between them.

    conv1 -> 256 rows -> conv2 -> 256 rows -> pool    becomes    3 rows, 2 rows

In a group a row is computed when a later operator needs it, so its memory soon becomes that of a
later row: a ring of rows. A skip connection inside a group holds only the rows between its two
ends. What another group reads is held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        eager: it computes a row as soon as it can, not when somebody needs it.
    """

    output: str
    rows: int
    row_bytes: int
    sources: tuple[Reach, ...] | None
    reads: tuple[str, ...]
    scratch: int
    eager: bool = False

    @property
    def size(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Groups of neighbouring operators.

    Attributes:
        groups: of operators, as (first, end).
        rings: value -> rows of it that are held.
        waits: as in `GroupRun`, if all operators that go by rows were in one group.
    """

    groups: tuple[tuple[int, int], ...]
    rings: Mapping[str, int]
    waits: Mapping[tuple[str, str], int]


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
        sequence = _Sequence(ops, self.public)
        # What some way to cut needs; groups that need more are not looked at to the end.
        enough = min(
            max((sequence.need(first, end) for first, end in cuts), default=0)
            for cuts in ([(i, i + 1) for i in range(count)], sequence.runs())
        )
        best = [0] + [enough + 1] * count
        cut = [0] * (count + 1)
        for end in range(1, count + 1):
            for first in reversed(range(end)):
                if end - first > 1 and not sequence.by_rows(first, end):
                    break
                if best[first] < best[end]:
                    need = max(best[first], sequence.need(first, end, best[end]))
                    if need < best[end]:
                        best[end], cut[end] = need, first
        groups = []
        end = count
        while end:
            groups.append((cut[end], end))
            end = cut[end]
        rings: dict[str, int] = {}
        for first, end in reversed(groups):
            whole = [op for op in ops[first:end] if sequence.is_whole(op, first, end)]
            rings |= run_group(ops[first:end]).rings
            rings |= {op.output: op.rows for op in whole}
        waits: dict[tuple[str, str], int] = {}
        for first, end in sequence.runs():
            waits |= run_group(ops[first:end]).waits
        return RowPlan(tuple(reversed(groups)), rings, waits)


class _Sequence:
    """The operators in order, and what groups of them need."""

    def __init__(self, ops: Sequence[RowOp], public: frozenset[str]) -> None:
        self.ops = ops
        self.public = public
        self.last = {value: index for index, op in enumerate(ops) for value in op.reads}
        self.through = [
            sum(
                op.size
                for index, op in enumerate(ops[:first])
                if self.last.get(op.output, index) >= first and op.output not in public
            )
            for first in range(len(ops))
        ]

    def by_rows(self, first: int, end: int) -> bool:
        """All operators go by rows; others stay alone."""
        return all(op.sources is not None for op in self.ops[first:end])

    def runs(self) -> list[tuple[int, int]]:
        """The longest groups of operators that go by rows, and the others alone."""
        found: list[tuple[int, int]] = []
        for index in range(len(self.ops)):
            if found and self.by_rows(found[-1][0], index + 1):
                found[-1] = (found[-1][0], index + 1)
            else:
                found.append((index, index + 1))
        return found

    def is_whole(self, op: RowOp, first: int, end: int) -> bool:
        """All rows of the output are held: somebody outside its group reads them."""
        return (
            end - first == 1
            or op.output in self.public
            or self.last.get(op.output, -1) >= end
            or op.sources is None
        )

    def need(self, first: int, end: int, enough: int = 1 << 62) -> int:
        """Bytes that live while a group runs; `enough` or more if it is not less than that."""
        group = self.ops[first:end]
        whole = [self.is_whole(op, first, end) for op in group]
        bytes_held = self.through[first] + max(op.scratch for op in group)
        sizes = [0 if op.output in self.public else op.row_bytes for op in group]
        for op, size, is_whole in zip(group, sizes, whole, strict=True):
            bytes_held += op.rows * size if is_whole else size
        if end - first == 1:
            return bytes_held
        growing = [0 if is_whole else size for size, is_whole in zip(sizes, whole, strict=True)]
        rings = run_group(group, growing, enough - bytes_held).rings
        return bytes_held + sum(
            (rings[op.output] - 1) * size for op, size in zip(group, growing, strict=True)
        )


@dataclass(frozen=True, slots=True)
class GroupRun:
    """What the order of rows in a group asks of memory.

    Attributes:
        rings: value -> the most rows of it that are needed at the same time.
        waits: (value, reader's output) -> the same as far as this reader needs them.
    """

    rings: Mapping[str, int]
    waits: Mapping[tuple[str, str], int]


def turns(group: Sequence[RowOp]) -> Iterator[int]:
    """Whose turn it is in a group, row after row: as the emitted program decides it.

    The last operator that is not done wants its next row. As long as an operator lacks a row of an
    input, the one that writes the input wants to compute it. Eager operators take a row at once.
    """
    index = {op.output: position for position, op in enumerate(group)}
    sources = [
        [(index[reach.source], reach) for reach in op.sources or () if reach.source in index]
        for op in group
    ]
    eager = [position for position, op in enumerate(group) if op.eager]
    done = [0] * len(group)

    def lacking(position: int) -> int | None:
        row = done[position]
        for source, reach in sources[position]:
            if not reach.complete(row, done[source]):
                return source
        return None

    def at_once() -> Iterator[int]:
        for position in eager:
            while done[position] < group[position].rows and lacking(position) is None:
                yield position
                done[position] += 1

    yield from at_once()
    for last in reversed(range(len(group))):
        while done[last] < group[last].rows:
            wanting = [last]
            while wanting:
                source = lacking(wanting[-1])
                if source is not None:
                    wanting.append(source)
                    continue
                ready = wanting.pop()
                yield ready
                done[ready] += 1
                if eager:
                    # These may have gone on so far that nobody wants what was wanted.
                    yield from at_once()
                    break


def run_group(
    group: Sequence[RowOp], sizes: Sequence[int] | None = None, enough: int = 1 << 62
) -> GroupRun:
    """How many rows of each output must be held, found by running the group without values.

    Args:
        group: operators in order.
        sizes: bytes of a row of each output.
        enough: it stops as soon as rows beyond the first one need so many bytes.
    """
    index = {op.output: position for position, op in enumerate(group)}
    readers: list[list[tuple[int, Reach]]] = [[] for _ in group]
    for position, op in enumerate(group):
        for reach in op.sources or ():
            if reach.source in index:
                readers[index[reach.source]].append((position, reach))
    done = [0] * len(group)
    rings = [1] * len(group)
    waits: dict[tuple[int, int], int] = {}
    spent = 0
    for position in turns(group):
        row, before = done[position], rings[position]
        for reader, reach in readers[position]:
            if done[reader] < group[reader].rows:
                held = row - min(row, reach.lowest[done[reader]]) + 1
                waits[position, reader] = max(waits.get((position, reader), 1), held)
                rings[position] = max(rings[position], held)
        done[position] += 1
        if sizes is not None and rings[position] > before:
            spent += (rings[position] - before) * sizes[position]
            if spent >= enough:
                break
    return GroupRun(
        {op.output: rings[position] for position, op in enumerate(group)},
        {(group[a].output, group[b].output): held for (a, b), held in waits.items()},
    )


__all__ = ["FuseRows", "GroupRun", "RowOp", "RowPlan", "run_group", "turns"]
