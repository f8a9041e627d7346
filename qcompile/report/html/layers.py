"""The error of every layer as a plot that reads like a table: a line from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.report.columns import shape_text
from qcompile.report.document import Report
from qcompile.report.html.names import plain, short_names
from qcompile.report.html.scales import (
    Axis,
    Swatch,
    bits_swatch,
    bytes_text,
    decibel_text,
    linear_axis,
    number,
    share_text,
    sqnr_swatch,
)
from qcompile.report.layers import LayerRow

HIGHEST = 60.0
"""Decibels at which the axis ends: more only says that a layer hardly computes."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line at a share of the width."""

    x: str
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One layer: texts, and the dot at `x` of the width; `before` is the dot above, if any."""

    name: str
    full_name: str
    detail: str
    weights: Swatch
    weight_text: str
    output: Swatch
    output_text: str
    saturated: str
    bytes: str
    x: str
    before: str
    swatch: Swatch
    value: str
    link: str


@dataclass(frozen=True)
class LayersPicture:
    """The plot."""

    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    lowest: str


def layers_picture(report: Report) -> LayersPicture | None:
    """None where no layer was compared with the float network."""
    measured: Mapping[int, float] = {
        index: row.fidelity.sqnr_db
        for index, row in enumerate(report.layers)
        if row.fidelity is not None and row.fidelity.sqnr_db is not None
    }
    if not measured:
        return None
    axis = linear_axis([min(value, HIGHEST) for value in measured.values()], ticks=3, zero=True)
    names = short_names(
        [row.name for row in report.layers], [row.operator for row in report.layers]
    )
    lines = []
    before = ""
    for index, row in enumerate(report.layers):
        decibels = measured.get(index)
        x = "" if decibels is None else _percent(axis, decibels)
        lines.append(_line(row, names[index], decibels, x, before, index, report))
        before = x or before
    worst = min(measured, key=lambda index: measured[index])
    return LayersPicture(
        tuple(Tick(_percent(axis, tick), number(tick)) for tick in axis.ticks),
        tuple(lines),
        f"{names[worst]}, {decibel_text(measured[worst])} dB",
    )


def _percent(axis: Axis, decibels: float) -> str:
    """A position across the plot, with room for half a tick's text and for the value's text."""
    return f"{2 + 75 * axis.place(decibels):.2f}%"


def _line(
    row: LayerRow,
    name: str,
    decibels: float | None,
    x: str,
    before: str,
    index: int,
    report: Report,
) -> Line:
    saturated = None if row.fidelity is None else row.fidelity.saturated
    kernel = "×".join(map(str, row.kernel))
    return Line(
        name,
        plain(row.name),
        f"{row.operator} {kernel}".strip() + f", {shape_text(row.output)}",
        bits_swatch(row.weight_bits),
        "" if row.weight_bits is None else _bits(row.weight_bits),
        bits_swatch(row.activation_bits),
        _bits(row.activation_bits),
        "" if saturated is None else share_text(saturated),
        bytes_text(row.weight_bytes) if row.weight_bytes else "",
        x,
        before,
        sqnr_swatch(decibels),
        decibel_text(decibels),
        f"#layer-{index}" if row.name in report.histograms else "",
    )


def _bits(bits: int) -> str:
    return "float" if bits == 32 else str(bits)
