"""The network as a picture: feature maps as bars, tall where the resolution is high.

Every bar and disc carries its colours for three questions (error, bits of weights, bits of the
output); the page's radio buttons choose one, by CSS alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.boundary import channel_axis
from qcompile.report.document import Report
from qcompile.report.html.layout import Item, Layout, lay_out
from qcompile.report.html.names import plain, short_names
from qcompile.report.html.network_faces import BARS, faces, glyph, kernel_text, legends, title
from qcompile.report.html.network_paths import ABOVE, BELOW, LANE, Edge, Node, edges_of
from qcompile.report.html.scales import Swatch
from qcompile.report.layers import LayerRow
from qcompile.types import Shape

LEFT, TOP, RIGHT = 84, 10, 16
TALLEST, SHORTEST, SIDE_ROW = 118, 58, 50
"""Heights of bars: finest level, coarsest, and those in a second row."""
COLUMN_GAP = 11
BAND_GAP = 12
DISC = 18
"""Diameter of the layers that only move or combine tensors."""


@dataclass(frozen=True, slots=True)
class Band:
    """The background of one level."""

    y: float
    height: float
    label: str


@dataclass(frozen=True)
class NetworkPicture:
    """Everything the template draws. `legends`: question -> swatches; `glyphs`: sign -> meaning."""

    width: float
    height: float
    bands: tuple[Band, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    legends: Mapping[str, tuple[Swatch, ...]]
    glyphs: tuple[tuple[str, str], ...]
    left: int = LEFT


def network_picture(report: Report) -> NetworkPicture:
    """The picture of a report's layers."""
    rows = {row.value: row for row in report.layers}
    items = _items(report)
    layout = lay_out(items)
    heights = _bar_heights(layout)
    sizes = {item.value: _size(item, rows.get(item.value), layout, heights) for item in items}
    lefts, width = _columns(layout, sizes, rows)
    tops, bands = _bands(layout, heights)
    named = short_names(
        [row.name for row in report.layers], [row.operator for row in report.layers]
    )
    short = dict(zip(rows, named, strict=True))
    short |= {item.name: plain(item.name) for item in report.inputs}
    nodes = {}
    for index, item in enumerate(items):
        cell = layout.cells[item.value]
        middle = lefts[cell.column][0] + lefts[cell.column][1] / 2
        top = tops[cell.level][cell.row]
        wide, high = sizes[item.value]
        full = heights[cell.level] if cell.row == 0 else SIDE_ROW
        row = rows.get(item.value)
        layer = index - len(report.inputs)
        link = f"#layer-{layer}" if row is not None and row.name in report.histograms else ""
        nodes[item.value] = Node(
            round(middle - wide / 2, 1),
            round(top + (full - high) / 2, 1),
            wide,
            high,
            row is None or row.operator in BARS,
            "" if row is None else glyph(row.operator)[0],
            _channels(item),
            "input" if row is None else kernel_text(row),
            faces(item.value, row, report),
            title(item.value, row, short, report),
            link,
        )
    bottom = bands[-1].y + bands[-1].height + 6
    return NetworkPicture(
        width,
        bottom,
        bands,
        tuple(nodes.values()),
        edges_of(layout, nodes, tops, short),
        legends(report.layers),
        tuple(
            dict.fromkeys(glyph(row.operator) for row in report.layers if row.operator not in BARS)
        ),
    )


def _items(report: Report) -> list[Item]:
    """Inputs and layers with channels first: only at its ends a network may have them last."""
    shapes: dict[str, Shape] = {}
    for port in report.inputs:
        axis = channel_axis(port.shape)
        rest = [size for place, size in enumerate(port.shape) if place not in (0, axis)]
        shapes[port.name] = (port.shape[0], port.shape[axis], *rest) if rest else port.shape
    found = [Item(name, (), shape) for name, shape in shapes.items()]
    for row in report.layers:
        turned = row.operator == "Transpose" and row.reads
        shapes[row.value] = shapes[row.reads[0]] if turned else row.output
        found.append(Item(row.value, row.reads, shapes[row.value]))
    return found


def _bar_heights(layout: Layout) -> list[float]:
    count = len(layout.sizes)
    if count == 1:
        return [TALLEST]
    ratio = (SHORTEST / TALLEST) ** (1 / (count - 1))
    return [round(TALLEST * ratio**level) for level in range(count)]


def _size(
    item: Item, row: LayerRow | None, layout: Layout, heights: Sequence[float]
) -> tuple[float, float]:
    if row is not None and row.operator not in BARS:
        return DISC, DISC
    cell = layout.cells[item.value]
    channels = item.shape[1] if len(item.shape) > 1 else 1
    width = min(38.0, round(15 + 2.2 * math.log2(max(1, channels)), 1))
    return width, heights[cell.level] if cell.row == 0 else SIDE_ROW


def _columns(
    layout: Layout, sizes: Mapping[str, tuple[float, float]], rows: Mapping[str, LayerRow]
) -> tuple[list[tuple[float, float]], float]:
    """Left edge and width of each column, and the width of the picture."""
    widths = [0.0] * layout.columns
    for value, cell in layout.cells.items():
        row = rows.get(value)
        text = 6.2 * len("input" if row is None else kernel_text(row))
        widths[cell.column] = max(widths[cell.column], sizes[value][0], text)
    found, x = [], float(LEFT)
    for width in widths:
        found.append((round(x, 1), round(width, 1)))
        x += width + COLUMN_GAP
    return found, round(x - COLUMN_GAP + RIGHT, 1)


def _bands(layout: Layout, heights: Sequence[float]) -> tuple[list[list[float]], tuple[Band, ...]]:
    """The top of the bars of each row of each level, and the backgrounds."""
    tops, bands, y = [], [], float(TOP)
    for level, size in enumerate(layout.sizes):
        start = y
        y += 6 + LANE * layout.lanes[level]
        rows = []
        for row in range(layout.rows[level]):
            rows.append(y + ABOVE)
            y += ABOVE + (heights[level] if row == 0 else SIDE_ROW) + BELOW
        tops.append(rows)
        bands.append(Band(start, y - start, size))
        y += BAND_GAP
    return tops, tuple(bands)


def _channels(item: Item) -> str:
    return str(item.shape[1]) if len(item.shape) > 1 else ""
