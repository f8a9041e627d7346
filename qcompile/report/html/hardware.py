"""What an accelerator costs: the cycles of its layers as bars, and its resources by origin."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.report.hardware import (
    RESOURCES_HEAD,
    HardwareReport,
    hardware_lines,
    resource_rows,
)
from qcompile.report.html.names import plain
from qcompile.report.html.scales import amount_text


@dataclass(frozen=True, slots=True)
class CycleBar:
    """One operator; `share` of the interval, in per cent for CSS."""

    name: str
    fold: str
    cycles: str
    share: str
    multipliers: str
    memory: str
    is_bottleneck: bool


@dataclass(frozen=True)
class HardwarePicture:
    """The section on an accelerator."""

    facts: tuple[tuple[str, str], ...]
    bars: tuple[CycleBar, ...]
    head: tuple[str, ...]
    resources: tuple[tuple[str, ...], ...]


def hardware_picture(report: HardwareReport | None) -> HardwarePicture | None:
    """None for other targets."""
    if report is None:
        return None
    longest = max(row.cycles for row in report.rows)
    return HardwarePicture(
        tuple((what, plain(text)) for what, text in hardware_lines(report)),
        tuple(
            CycleBar(
                plain(row.name),
                row.fold,
                f"{row.cycles:,}",
                f"{100 * row.cycles / longest:.1f}%",
                str(row.multipliers or ""),
                amount_text(row.ram_bits + row.fifo_bits) if row.ram_bits + row.fifo_bits else "",
                row.bottleneck,
            )
            for row in report.rows
        ),
        RESOURCES_HEAD,
        tuple(resource_rows(report.resources)) if report.resources else (),
    )
