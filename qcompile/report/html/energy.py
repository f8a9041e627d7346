"""The analytical energy as bars, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.report.document import Report
from qcompile.report.energy import (
    ENERGY_HEAD,
    TITLES,
    Arithmetic,
    Energy,
    energy_rows,
    energy_text,
    measured_lines,
    microjoule_text,
)
from qcompile.report.html.names import plain

PARTS = (
    ("compute", "compute", "#4575b4"),
    ("weights", "reading weights", "#fdae61"),
    ("activations", "moving activations", "#abd9e9"),
)
"""Attribute of `Energy`, what it is called, colour (of ColorBrewer's RdYlBu)."""
DEAREST = 8
"""Layers that are listed."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar; `share` of the longest bar, in per cent for CSS."""

    label: str
    colour: str
    share: str


@dataclass(frozen=True, slots=True)
class EnergyBar:
    """One kind of numbers, or one layer."""

    title: str
    total: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class EnergyPicture:
    """The section on energy."""

    text: str
    bars: tuple[EnergyBar, ...]
    layers: tuple[EnergyBar, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    measured: tuple[tuple[str, str], ...]
    legend: tuple[tuple[str, str], ...]


def energy_picture(report: Report) -> EnergyPicture | None:
    """None where it was not computed, or nothing costs any."""
    energy = report.energy
    if energy is None:
        return None
    totals = {TITLES[kind]: column.total for kind, column in energy.columns.items()}
    longest = max(item.total for item in totals.values())
    if not longest:
        return None
    layers = energy.columns[Arithmetic.CHOSEN].layers
    dearest = sorted(layers, key=lambda name: -layers[name].total)[:DEAREST]
    return EnergyPicture(
        plain(energy_text(energy)),
        tuple(_bar(title, item, longest) for title, item in totals.items()),
        tuple(_bar(name, layers[name], layers[dearest[0]].total or 1.0) for name in dearest),
        ENERGY_HEAD,
        tuple(energy_rows(energy)),
        tuple(measured_lines(energy, report.hardware)),
        tuple((label, colour) for _, label, colour in PARTS),
    )


def _bar(title: str, item: Energy, longest: float) -> EnergyBar:
    segments = []
    for name, label, colour in PARTS:
        part = getattr(item, name)
        segments.append(
            Segment(f"{label}: {microjoule_text(part)}", colour, f"{100 * part / longest:.2f}%")
        )
    return EnergyBar(plain(title), microjoule_text(item.total), tuple(segments))
