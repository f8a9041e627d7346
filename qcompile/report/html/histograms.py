"""Histograms of weights and outputs, a card a layer: bars are codes, the line is the float network.

The height is logarithmic, so that what is clipped in the tails is seen beside a peak at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qcompile.ops import MOVEMENT
from qcompile.report.document import Report
from qcompile.report.histograms import Histogram
from qcompile.report.html.names import plain, short_names
from qcompile.report.html.scales import Swatch, decibel_text, number, share_text, sqnr_swatch
from qcompile.report.layers import LayerRow

WIDTH, HEIGHT = 232, 122
LEFT, RIGHT, TOP, BASE = 46, 10, 8, 94
"""Edges of the plot: `BASE` is its bottom, `RIGHT` the margin at the right."""
DECADES = 5
"""From 100 % down."""
_MOVES = frozenset(operator.__name__ for operator in MOVEMENT) | {"Dequantize", "Quantize"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in pixels of the plot."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A position with a text, which `anchor` (of SVG) keeps inside the picture."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Plot:
    """One histogram: `line` and `beyond` are SVG paths of the float distribution, inside and
    outside the range; `ends` are where clipping starts."""

    caption: str
    clipped: str
    is_clipped: bool
    bars: tuple[Bar, ...]
    line: str
    beyond: str
    ends: tuple[float, ...]
    marks: tuple[Mark, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Card:
    """A layer with its one or two plots."""

    key: str
    name: str
    full_name: str
    operator: str
    sqnr: str
    swatch: Swatch
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class HistogramPicture:
    """All cards; `hidden` are those of layers that only move what others computed."""

    cards: tuple[Card, ...]
    hidden: tuple[Card, ...]
    levels: tuple[Mark, ...]
    most: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    base: int = BASE


def histogram_picture(report: Report) -> HistogramPicture | None:
    """None where no histograms were collected."""
    if not report.histograms:
        return None
    names = short_names(
        [row.name for row in report.layers], [row.operator for row in report.layers]
    )
    shown: list[Card] = []
    hidden: list[Card] = []
    for index, row in enumerate(report.layers):
        if row.name in report.histograms:
            card = _card(row, names[index], index, report)
            (hidden if row.operator in _MOVES else shown).append(card)
    share, name = _most_clipped(report, names)
    levels = [Mark(_y(10.0**-power), label) for power, label in _LEVELS]
    most = f"{name}, {share_text(share)}" if share > 0 else ""
    return HistogramPicture(tuple(shown), tuple(hidden), tuple(levels), most)


_LEVELS = ((0, "100 %"), (2, "1 %"), (4, "0.01 %"))


def _most_clipped(report: Report, names: list[str]) -> tuple[float, str]:
    found = [
        (histogram.clipped, -index)
        for index, row in enumerate(report.layers)
        if (layer := report.histograms.get(row.name)) is not None
        for histogram in (layer.weights, layer.output)
        if histogram is not None
    ]
    share, place = max(found)
    return share, names[-place]


def _card(row: LayerRow, name: str, index: int, report: Report) -> Card:
    layer = report.histograms[row.name]
    plots = []
    if layer.weights is not None:
        plots.append(_plot(layer.weights, f"Weights in steps, {_bits(row.weight_bits)}"))
    if layer.output is not None:
        plots.append(_plot(layer.output, f"Output, {_bits(row.activation_bits)}"))
    decibels = None if row.fidelity is None else row.fidelity.sqnr_db
    return Card(
        f"layer-{index}",
        name,
        plain(row.name),
        row.operator,
        "" if decibels is None else f"{decibel_text(decibels)} dB",
        sqnr_swatch(decibels),
        tuple(plots),
    )


def _bits(bits: int | None) -> str:
    return "float" if bits is None or bits == 32 else f"{bits} bit"


def _plot(histogram: Histogram, caption: str) -> Plot:
    total = max(1, sum(histogram.real))
    first = histogram.start
    span = histogram.width * len(histogram.real)

    def x(value: float) -> float:
        share = (value - first) / span
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, share)), 1)

    bars = []
    code_total = max(1, sum(histogram.bars))
    for place, count in enumerate(histogram.bars):
        if count:
            left = x(histogram.bar_start + place * histogram.bar_width)
            right = x(histogram.bar_start + (place + 1) * histogram.bar_width)
            gap = 0.6 if right - left > 2.5 else 0.0
            top = _y(count / code_total)
            bars.append(Bar(left + gap / 2, top, round(right - left - gap, 1), BASE - top))
    # Shares of the float line are those of a bar's width, so that line and bars compare.
    factor = histogram.bar_width / histogram.width if histogram.bars else 1.0
    inside: list[tuple[float, float, float]] = []
    outside: list[tuple[float, float, float]] = []
    for place, count in enumerate(histogram.real):
        low = first + place * histogram.width
        beyond = histogram.low is not None and not (
            histogram.low <= low + histogram.width / 2 <= (histogram.high or 0)
        )
        height = _y(count * factor / total)
        piece = (x(low), x(low + histogram.width), height)
        (outside if beyond else inside).append(piece)
    ends = [] if histogram.low is None else [x(histogram.low), x(histogram.high or 0)]
    clipped = ""
    if histogram.low is not None:
        clipped = (
            f"{share_text(histogram.clipped)} clipped" if histogram.clipped else "none clipped"
        )
    return Plot(
        caption,
        clipped,
        histogram.clipped > 0,
        tuple(bars),
        _outline(inside),
        _areas(outside),
        tuple(ends),
        _marks(histogram, x),
        _title(histogram, caption),
    )


def _y(share: float) -> float:
    """The height of a share on the logarithmic axis."""
    decades = DECADES + math.log10(share) if share > 0 else 0.0
    return round(BASE - (BASE - TOP) * min(1.0, max(0.0, decades / DECADES)), 1)


def _outline(pieces: list[tuple[float, float, float]]) -> str:
    """Steps as one open path."""
    path: list[str] = []
    for left, right, height in pieces:
        path.append(f"{'L' if path else 'M'}{left},{height} L{right},{height}")
    return " ".join(path)


def _areas(pieces: list[tuple[float, float, float]]) -> str:
    """Filled columns, those without height left out."""
    return " ".join(
        f"M{left},{BASE} L{left},{height} L{right},{height} L{right},{BASE} Z"
        for left, right, height in pieces
        if height < BASE
    )


def _marks(histogram: Histogram, x: Callable[[float], float]) -> tuple[Mark, ...]:
    if histogram.low is None or histogram.high is None:
        ends = [histogram.smallest, histogram.largest]
    else:
        # The outermost codes stand half a step inside.
        half = histogram.step / 2
        ends = [histogram.low + half, histogram.high - half]
    marks = [_mark(x(value), number(_rounded(value, histogram))) for value in ends]
    zero = x(0.0)
    if ends[0] < 0 < ends[1] and all(abs(zero - mark.at) > 26 for mark in marks):
        marks.insert(1, Mark(zero, "0"))
    return tuple(marks)


def _mark(at: float, label: str) -> Mark:
    return Mark(at, label, "end" if at + 3.5 * len(label) > WIDTH else "middle")


def _rounded(value: float, histogram: Histogram) -> float:
    """Without what arithmetic left of a zero."""
    return 0.0 if abs(value) < 1e-9 * max(1.0, abs(histogram.largest)) else value


def _title(histogram: Histogram, caption: str) -> str:
    unit = " steps" if histogram.in_steps else ""
    lines = [
        caption,
        f"float numbers from {number(histogram.smallest)} to {number(histogram.largest)}{unit}",
    ]
    if histogram.low is not None and histogram.high is not None:
        total = max(1, sum(histogram.real))
        low, high = histogram.low + histogram.step / 2, histogram.high - histogram.step / 2
        lines.append(f"codes stand for {number(low)} to {number(high)}{unit}")
        lines.append(
            f"clipped below: {share_text(histogram.below / total)}, "
            f"above: {share_text(histogram.above / total)}"
        )
    return "\n".join(lines)
