"""The network as a picture: feature maps as bars, tall where the resolution is high.

Every bar and disc carries its colours for three questions (error, bits of weights, bits of the
output); the page's radio buttons choose one, by CSS alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.report.columns import shape_text
from qcompile.report.document import Report
from qcompile.report.html.layout import Cell, Item, Layout, lay_out
from qcompile.report.html.names import plain, short_names
from qcompile.report.html.scales import (
    SQNR_SWATCHES,
    UNKNOWN,
    Swatch,
    bits_swatch,
    minus,
    share_text,
    sqnr_swatch,
)
from qcompile.report.layers import LayerRow

LEFT, TOP, RIGHT = 84, 10, 16
TALLEST, SHORTEST, SIDE_ROW = 118, 58, 50
"""Heights of bars: finest level, coarsest, and those in a second row."""
ABOVE, BELOW = 17, 17
"""Room for the texts above and below a bar."""
LANE = 15
COLUMN_GAP = 13
BAND_GAP = 12
DISC = 18
"""Diameter of the layers that only move or combine tensors."""

_BARS = ("Conv", "ConvTranspose", "MatMul")
_GLYPHS: Mapping[str, tuple[str, str]] = {
    "Add": ("+", "sum"),
    "Mul": ("×", "product"),
    "Div": ("÷", "quotient"),
    "Affine": ("a", "scale and shift"),
    "Concat": ("C", "concatenation"),
    "MaxPool": ("↓", "pooling"),
    "AveragePool": ("↓", "pooling"),
    "ReduceMean": ("m", "mean"),
    "NearestResize": ("↑", "resize"),
    "LinearResize": ("↑", "resize"),
    "DepthToSpace": ("↑", "resize"),
    "Rescale": ("s", "change of scale"),
    "GroupNorm": ("n", "norm"),
    "Softmax": ("p", "softmax"),
    "ArgMax": ("k", "class map"),
    "Threshold": ("k", "class map"),
    "Quantize": ("q", "quantise"),
    "Dequantize": ("r", "to real numbers"),
}
_FUNCTION = ("f", "function of one tensor")
_MOVES = ("Pad", "Slice", "Transpose", "Reshape")
_MOVE = ("·", "other movement")


@dataclass(frozen=True, slots=True)
class Face:
    """How a node looks under one question."""

    swatch: Swatch
    text: str


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
class Band:
    """The background of one level."""

    y: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection as an SVG path."""

    path: str
    is_skip: bool
    title: str


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


MODES = (
    ("sqnr", "Error (SQNR, dB)"),
    ("wbits", "Bits of weights"),
    ("abits", "Bits of output"),
)


def network_picture(report: Report) -> NetworkPicture:
    """The picture of a report's layers."""
    rows = {row.value: row for row in report.layers}
    inputs = [Item(item.name, (), item.shape) for item in report.inputs]
    items = [*inputs, *(Item(row.value, row.reads, row.output) for row in report.layers)]
    layout = lay_out(items)
    heights = _bar_heights(layout)
    sizes = {item.value: _size(item, rows.get(item.value), layout, heights) for item in items}
    lefts, width = _columns(layout, sizes, rows)
    tops, bands = _bands(layout, heights)
    named = short_names(
        [row.name for row in report.layers], [row.operator for row in report.layers]
    )
    short = dict(zip(rows, named, strict=True))
    short |= {item.value: plain(item.value) for item in inputs}
    nodes = {}
    for index, item in enumerate(items):
        cell = layout.cells[item.value]
        middle = lefts[cell.column][0] + lefts[cell.column][1] / 2
        top = tops[cell.level][cell.row]
        wide, high = sizes[item.value]
        full = heights[cell.level] if cell.row == 0 else SIDE_ROW
        row = rows.get(item.value)
        layer = index - len(inputs)
        link = f"#layer-{layer}" if row is not None and row.name in report.histograms else ""
        nodes[item.value] = Node(
            round(middle - wide / 2, 1),
            round(top + (full - high) / 2, 1),
            wide,
            high,
            row is None or row.operator in _BARS,
            "" if row is None else _glyph(row.operator)[0],
            _channels(item),
            "input" if row is None else _kernel_text(row),
            _faces(item, row, report),
            _title(item, row, short),
            link,
        )
    bottom = bands[-1].y + bands[-1].height + 6
    return NetworkPicture(
        width,
        bottom,
        bands,
        tuple(nodes.values()),
        _edges(layout, nodes, tops, short),
        _legends(report.layers),
        tuple(
            dict.fromkeys(
                _glyph(row.operator) for row in report.layers if row.operator not in _BARS
            )
        ),
    )


def _bar_heights(layout: Layout) -> list[float]:
    count = len(layout.sizes)
    if count == 1:
        return [TALLEST]
    ratio = (SHORTEST / TALLEST) ** (1 / (count - 1))
    return [round(TALLEST * ratio**level) for level in range(count)]


def _size(
    item: Item, row: LayerRow | None, layout: Layout, heights: Sequence[float]
) -> tuple[float, float]:
    if row is not None and row.operator not in _BARS:
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
        text = 6.2 * len("input" if row is None else _kernel_text(row))
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


def _kernel_text(row: LayerRow) -> str:
    """'3×3'; '↑2×2' of a transposed convolution."""
    if row.operator not in _BARS:
        return ""
    text = "×".join(map(str, row.kernel)) or "dense"
    return f"↑{text}" if row.operator == "ConvTranspose" else text


def _glyph(operator: str) -> tuple[str, str]:
    return _GLYPHS.get(operator) or (_MOVE if operator in _MOVES else _FUNCTION)


def _faces(item: Item, row: LayerRow | None, report: Report) -> dict[str, Face]:
    if row is None:
        element = next((port.element for port in report.inputs if port.name == item.value), "")
        bits = 8 if element == "uint8" else 32
        bar = Face(UNKNOWN, "")
        return {"sqnr": bar, "wbits": bar, "abits": Face(bits_swatch(bits), _bits(bits))}
    decibels = None if row.fidelity is None else row.fidelity.sqnr_db
    return {
        "sqnr": Face(
            sqnr_swatch(decibels), "" if decibels is None else f"{minus(f'{decibels:.1f}')} dB"
        ),
        "wbits": Face(bits_swatch(row.weight_bits), _bits(row.weight_bits)),
        "abits": Face(bits_swatch(row.activation_bits), _bits(row.activation_bits)),
    }


def _bits(bits: int | None) -> str:
    if bits is None:
        return ""
    return "float" if bits == 32 else f"{bits} bit"


def _title(item: Item, row: LayerRow | None, short: Mapping[str, str]) -> str:
    """The tooltip."""
    if row is None:
        return f"{plain(item.value)}\ninput of the network, {shape_text(item.shape)}"
    lines = [plain(row.name), f"{row.operator} {_kernel_text(row)}".strip()]
    sources = ", ".join(short.get(value, plain(value)) for value in row.reads)
    lines.append(f"reads {sources}; gives {shape_text(row.output)}")
    if row.weight_bits is not None:
        lines.append(f"weights: {_bits(row.weight_bits)}, {row.weight_format}")
    lines.append(f"output: {_bits(row.activation_bits)}, {row.activation_format}")
    if row.fidelity is not None and row.fidelity.sqnr_db is not None:
        lines.append(f"SQNR {minus(f'{row.fidelity.sqnr_db:.1f}')} dB")
    if row.fidelity is not None and row.fidelity.saturated is not None:
        lines.append(f"at the end of the range: {share_text(row.fidelity.saturated)}")
    return "\n".join(lines)


def _edges(
    layout: Layout,
    nodes: Mapping[str, Node],
    tops: Sequence[Sequence[float]],
    short: Mapping[str, str],
) -> tuple[Edge, ...]:
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


def _legends(layers: Sequence[LayerRow]) -> dict[str, tuple[Swatch, ...]]:
    def widths(bits: Sequence[int | None]) -> tuple[Swatch, ...]:
        known = sorted({item for item in bits if item is not None})
        missing: tuple[Swatch, ...] = (bits_swatch(None),) if None in bits else ()
        return (*(bits_swatch(item) for item in known), *missing)

    unmeasured = any(row.fidelity is None or row.fidelity.sqnr_db is None for row in layers)
    return {
        "sqnr": (*SQNR_SWATCHES, UNKNOWN) if unmeasured else SQNR_SWATCHES,
        "wbits": widths([row.weight_bits for row in layers]),
        "abits": widths([row.activation_bits for row in layers]),
    }
