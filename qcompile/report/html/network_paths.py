"""The nodes of the network's picture and the lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.report.html.layout import Cell, Layout
from qcompile.report.html.network_faces import Face

ABOVE, BELOW = 17, 17
"""Room for the texts above and below a bar."""
LANE = 15
"""Height of a lane of arcs."""


@dataclass(frozen=True, slots=True)
class Node:
    """A bar (with texts above and below) or a disc; `x` and `y` are the corner at the top left."""

    x: float
    y: float
    width: float
    height: float
    is_bar: bool
    glyph: str
    above: str
    below: str
    faces: Mapping[str, Face]
    title: str
    link: str

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection as an SVG path."""

    path: str
    is_skip: bool
    title: str


def edges_of(
    layout: Layout,
    nodes: Mapping[str, Node],
    tops: Sequence[Sequence[float]],
    short: Mapping[str, str],
) -> tuple[Edge, ...]:
    """All connections.

    Args:
        layout: says which are arcs.
        nodes: value -> node.
        tops: top of the bars of each row of each level.
        short: value -> name for people.
    """
    found = [
        Edge(
            _line(nodes[start], nodes[end], layout.cells[start], layout.cells[end]),
            False,
            f"{short[start]} → {short[end]}",
        )
        for start, end in layout.lines
    ]
    for arc in layout.arcs:
        level = layout.cells[arc.start].level
        peak = tops[level][0] - ABOVE - 3 - LANE * arc.lane - LANE / 2
        path = _arc(nodes[arc.start], nodes[arc.end], peak)
        found.append(Edge(path, True, f"skip: {short[arc.start]} → {short[arc.end]}"))
    return tuple(found)


def _line(start: Node, end: Node, source: Cell, target: Cell) -> str:
    (sx, sy), (ex, ey) = start.middle, end.middle
    if source.level < target.level and source.column == target.column:
        bottom = start.bottom + (BELOW - 4 if start.is_bar else 0)
        if target.row == 0:
            top = end.y - (ABOVE - 3)
            return f"M{sx:.1f},{bottom:.1f} L{ex:.1f},{top:.1f}"
        side = end.x - 9  # around what stands in the rows above
        return (
            f"M{sx:.1f},{bottom:.1f} C{sx:.1f},{bottom + 14:.1f} {side:.1f},{bottom:.1f} "
            f"{side:.1f},{bottom + 26:.1f} L{side:.1f},{ey - 10:.1f} "
            f"Q{side:.1f},{ey:.1f} {end.x - 2:.1f},{ey:.1f}"
        )
    if source.level == target.level and source.row > target.row:
        return f"M{start.right:.1f},{sy:.1f} Q{ex:.1f},{sy:.1f} {ex:.1f},{end.bottom + 3:.1f}"
    bend = min(30.0, (end.x - start.right) / 2 + 4)
    return (
        f"M{start.right:.1f},{sy:.1f} C{start.right + bend:.1f},{sy:.1f} "
        f"{end.x - bend:.1f},{ey:.1f} {end.x - 2:.1f},{ey:.1f}"
    )


def _arc(start: Node, end: Node, peak: float) -> str:
    """Up from the right side of one node, along its lane, and down into the other."""
    y0 = start.y + min(12.0, start.height / 3)
    y1 = end.y - 2 if not end.is_bar else end.y - (ABOVE - 3)
    x0, x1 = start.right, end.middle[0]
    turn = min(26.0, (x1 - x0) / 2)
    return (
        f"M{x0:.1f},{y0:.1f} C{x0 + turn * 0.5:.1f},{y0:.1f} {x0 + turn * 0.3:.1f},{peak:.1f} "
        f"{x0 + turn:.1f},{peak:.1f} L{x1 - turn:.1f},{peak:.1f} "
        f"C{x1 - turn * 0.2:.1f},{peak:.1f} {x1:.1f},{peak + 4:.1f} {x1:.1f},{y1:.1f}"
    )
