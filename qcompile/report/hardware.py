"""What an accelerator costs and how fast it is: estimates, and what tools measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcompile.report.columns import NOTHING, count_text, number_text

HARDWARE_HEAD = (
    "Layer",
    "Fold",
    "Cycles",
    "Frames/s",
    "Mult",
    "LUT est.",
    "RAM bits",
    "FIFO bits",
)
RESOURCES_HEAD = ("whole accelerator", "estimated", "post-synthesis", "post-route")


@dataclass(frozen=True, slots=True)
class HardwareRow:
    """One operator of the accelerator.

    Attributes:
        fold: 'PE x SIMD'.
        cycles: clock cycles of a frame when nothing else limits.
        fps: frames a second that this operator alone would allow at the clock asked for.
        multipliers: hardware multipliers.
        luts: estimate, None where no device was named.
        ram_bits: memories of its blocks.
        fifo_bits: FIFOs in front of it.
        bottleneck: no other operator takes more cycles.
    """

    name: str
    fold: str
    cycles: int
    fps: float
    multipliers: int
    luts: int | None
    ram_bits: int
    fifo_bits: int
    bottleneck: bool


@dataclass(frozen=True, slots=True)
class Resources:
    """The whole accelerator at one stage of the flow; None where nothing is known.

    Attributes:
        origin: 'estimated', 'post-synthesis' or 'post-route'.
        tool: name and version of the tool, or why there is no figure.
        fmax: MHz, only from a router.
        fps: frames a second at `fmax` (for the estimate, at the clock asked for).
    """

    origin: str
    tool: str
    luts: int | None = None
    ffs: int | None = None
    ram_blocks: int | None = None
    multipliers: int | None = None
    fmax: float | None = None
    fps: float | None = None


@dataclass(frozen=True)
class HardwareReport:
    """An accelerator.

    Attributes:
        device: None for any.
        usage: resource -> estimated share of the device; empty without one.
        clock: MHz asked for.
        interval: clock cycles from frame to frame (cycle model).
        latency: clock cycles from the first input beat to the last output beat of a frame.
        exact: whether interval and latency are; with the smallest FIFOs they are estimates.
        ram_bits: all memories, FIFOs included.
        fifo_minimum_bits: FIFOs that would do to never stop.
        resources: one entry for each stage of the flow that was reached.
    """

    device: str | None
    clock: float
    interval: int
    latency: int
    exact: bool
    multipliers: int
    ram_bits: int
    fifo_bits: int
    fifo_minimum_bits: int
    rows: tuple[HardwareRow, ...]
    resources: tuple[Resources, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames a second at the clock asked for."""
        return self.clock * 1e6 / self.interval

    @property
    def bottleneck(self) -> HardwareRow:
        return max(self.rows, key=lambda row: row.cycles)

    @property
    def utilisation(self) -> float:
        """Share of the interval in which the bottleneck computes."""
        return self.bottleneck.cycles / self.interval

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `report.json`."""
        return {
            "device": self.device,
            "clock_mhz": self.clock,
            "cycles_per_frame": self.interval,
            "latency_cycles": self.latency,
            "exact": self.exact,
            "frames_per_second": round(self.fps, 3),
            "bottleneck": self.bottleneck.name,
            "bottleneck_utilisation": round(self.utilisation, 4),
            "multipliers": self.multipliers,
            "ram_bits": self.ram_bits,
            "fifo_bits": self.fifo_bits,
            "fifo_minimum_bits": self.fifo_minimum_bits,
            "layers": [dataclasses.asdict(row) for row in self.rows],
            "resources": [dataclasses.asdict(item) for item in self.resources],
        }


def hardware_rows(report: HardwareReport) -> list[tuple[str, ...]]:
    """The cells of the table of layers, under `HARDWARE_HEAD`; the bottleneck has a star."""
    return [
        (
            row.name,
            row.fold,
            f"{row.cycles:,}{' *' if row.bottleneck else '  '}",
            f"{row.fps:,.1f}",
            str(row.multipliers),
            count_text(row.luts),
            count_text(row.ram_bits),
            count_text(row.fifo_bits),
        )
        for row in report.rows
    ]


def hardware_lines(report: HardwareReport) -> list[tuple[str, str]]:
    """(what, how much) for the whole accelerator."""
    pace = "" if report.exact else "; small FIFOs set the pace"
    milliseconds = report.latency / report.clock / 1e3
    return [
        ("device", f"{report.device or 'any'}{_usage(report)}"),
        (
            "bottleneck (*)",
            f"{report.bottleneck.name}, {report.utilisation:.1%} of the interval{pace}",
        ),
        ("cycles per frame", f"{report.interval:,}{'' if report.exact else ' (estimate)'}"),
        ("frames per second", f"{report.fps:,.1f} at {report.clock:g} MHz"),
        ("latency", f"{report.latency:,} cycles, {milliseconds:.2f} ms at {report.clock:g} MHz"),
        ("multipliers", f"{report.multipliers:,}"),
        ("RAM", f"{report.ram_bits:,} bits, {report.fifo_bits:,} of them in FIFOs"),
        ("FIFOs at least", f"{report.fifo_minimum_bits:,} bits, proven never to stop"),
    ]


def _usage(report: HardwareReport) -> str:
    """': 18 % of its LUTs, ...'."""
    shares = ", ".join(f"{share:.0%} of its {what}" for what, share in report.usage.items())
    return f": {shares} (estimated)" if shares else ""


def resource_rows(resources: Sequence[Resources]) -> list[tuple[str, ...]]:
    """A row for each figure, a column for each origin, under `RESOURCES_HEAD`."""
    by_origin = {item.origin: item for item in resources}
    columns = [by_origin.get(name) for name in RESOURCES_HEAD[1:]]

    def row(what: str, *cells: str) -> tuple[str, ...]:
        return (what, *cells)

    def counts(field: str) -> list[str]:
        return [
            NOTHING if item is None or getattr(item, field) is None else f"{getattr(item, field):,}"
            for item in columns
        ]

    def reals(field: str) -> list[str]:
        return [number_text(None if item is None else getattr(item, field), 1) for item in columns]

    return [
        row("LUT", *counts("luts")),
        row("FF", *counts("ffs")),
        row("RAM blocks", *counts("ram_blocks")),
        row("multipliers", *counts("multipliers")),
        row("Fmax, MHz", *reals("fmax")),
        row("frames/s", *reals("fps")),
        row("by", *(NOTHING if item is None else item.tool for item in columns)),
    ]
