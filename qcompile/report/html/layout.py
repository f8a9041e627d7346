"""Where the layers of a network stand in its picture: a U, since resolution is what goes down.

Levels (rows of the picture) are resolutions, columns are steps of computation. Going down to a
coarser level stays in the column, everything else takes the next one:

    conv conv ------------------------------ concat conv
            conv conv ------------ concat conv
                    conv conv
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.types import Shape


@dataclass(frozen=True, slots=True)
class Item:
    """A layer, or an input of the network, named by the tensor that it makes.

    Attributes:
        value: that tensor.
        reads: the tensors it is made from.
        shape: of the tensor, batch first.
    """

    value: str
    reads: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, slots=True)
class Cell:
    """A place: level from the finest resolution, column from the left, row within both."""

    level: int
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Arc:
    """A tensor that passes over layers of its own level, in a lane above them (0 is the lowest)."""

    start: str
    end: str
    lane: int


@dataclass(frozen=True)
class Layout:
    """Places by tensor, and the connections between them.

    Attributes:
        cells: value -> place.
        arcs: connections within a level that pass over others.
        lines: all other connections.
        sizes: the resolution of each level, such as '128 x 128'.
        rows: of each level.
        lanes: of each level.
    """

    cells: Mapping[str, Cell]
    arcs: tuple[Arc, ...]
    lines: tuple[tuple[str, str], ...]
    sizes: tuple[str, ...]
    rows: tuple[int, ...]
    lanes: tuple[int, ...]

    @property
    def columns(self) -> int:
        return 1 + max(cell.column for cell in self.cells.values())


def lay_out(items: Sequence[Item]) -> Layout:
    """The layout of a network.

    Args:
        items: inputs first, then layers in order of execution; at least one.
    """
    known = {item.value: item for item in items}
    depth = _levels(items, known)
    ranks = {level: index for index, level in enumerate(sorted(set(depth.values())))}
    levels = {value: ranks[level] for value, level in depth.items()}
    columns: dict[str, int] = {}
    for item in items:
        sources = [value for value in item.reads if value in columns]
        columns[item.value] = max(
            (columns[value] + (levels[value] >= levels[item.value]) for value in sources),
            default=0,
        )
    rows = _rows(items, levels, columns)
    cells = {value: Cell(levels[value], columns[value], rows[value]) for value in known}
    arcs, lines = _connections(items, cells)
    count = len(ranks)
    sizes = [""] * count
    for item in reversed(items):
        sizes[levels[item.value]] = " × ".join(map(str, item.shape[2:])) or "1"
    return Layout(
        cells,
        arcs,
        lines,
        tuple(sizes),
        tuple(
            1 + max(cell.row for cell in cells.values() if cell.level == level)
            for level in range(count)
        ),
        tuple(
            max((arc.lane + 1 for arc in arcs if cells[arc.start].level == level), default=0)
            for level in range(count)
        ),
    )


def _levels(items: Sequence[Item], known: Mapping[str, Item]) -> dict[str, int]:
    """How many halvings each tensor is below the input; convolutions without padding trim a few
    pixels, which makes no level of its own."""
    levels: dict[str, int] = {}
    for item in items:
        sources = [value for value in item.reads if value in levels]
        if not sources:
            levels[item.value] = 0
            continue
        widest = max(sources, key=lambda value: math.prod(known[value].shape[2:]))
        before, after = known[widest].shape[2:], item.shape[2:]
        axes = max(1, len(before))
        ratio = math.prod(after) / math.prod(before)
        levels[item.value] = levels[widest] - round(math.log2(ratio) / axes)
    return levels


def _rows(
    items: Sequence[Item], levels: Mapping[str, int], columns: Mapping[str, int]
) -> dict[str, int]:
    """Layers that share level and column lie below each other, the longest path to the end on
    top."""
    remaining: dict[str, int] = {}
    for item in reversed(items):
        remaining.setdefault(item.value, 0)
        for value in item.reads:
            remaining[value] = max(remaining.get(value, 0), remaining[item.value] + 1)
    order = {item.value: index for index, item in enumerate(items)}
    cells: dict[tuple[int, int], list[str]] = {}
    for item in items:
        cells.setdefault((levels[item.value], columns[item.value]), []).append(item.value)
    rows: dict[str, int] = {}
    for values in cells.values():
        values.sort(key=lambda value: (-remaining[value], order[value]))
        rows |= {value: row for row, value in enumerate(values)}
    return rows


def _connections(
    items: Sequence[Item], cells: Mapping[str, Cell]
) -> tuple[tuple[Arc, ...], tuple[tuple[str, str], ...]]:
    skips: list[tuple[str, str]] = []
    lines: list[tuple[str, str]] = []
    for item in items:
        end = cells[item.value]
        for value in dict.fromkeys(item.reads):
            if value not in cells:
                continue
            start = cells[value]
            passes = start.level == end.level and end.column - start.column > 1
            (skips if passes and start.row == end.row == 0 else lines).append((value, item.value))
    lanes: list[list[tuple[str, str]]] = []
    arcs = []
    # Short ones first, so that they lie inside long ones.
    for skip in sorted(skips, key=lambda pair: cells[pair[1]].column - cells[pair[0]].column):
        lane = 0
        while lane < len(lanes) and any(_overlap(skip, other, cells) for other in lanes[lane]):
            lane += 1
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(skip)
        arcs.append(Arc(*skip, lane))
    return tuple(arcs), tuple(lines)


def _overlap(one: tuple[str, str], other: tuple[str, str], cells: Mapping[str, Cell]) -> bool:
    if cells[one[0]].level != cells[other[0]].level:
        return False
    return (
        cells[one[0]].column < cells[other[1]].column
        and cells[other[0]].column < cells[one[1]].column
    )
