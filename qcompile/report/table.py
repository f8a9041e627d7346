"""The table that the command line prints at the end."""

from __future__ import annotations

from io import StringIO
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qcompile.report.columns import COLUMNS, safe_name
from qcompile.report.document import Report
from qcompile.report.footprint import footprint_lines
from qcompile.report.hardware import (
    HARDWARE_HEAD,
    RESOURCES_HEAD,
    HardwareReport,
    hardware_lines,
    hardware_rows,
    resource_rows,
)
from qcompile.report.pruned import pruning_lines
from qcompile.report.summary import (
    DICE_HEAD,
    calibration_text,
    dice_rows,
    dice_text,
    totals_lines,
    verification_text,
)
from qcompile.report.ternary import ternary_lines

PIPE_WIDTH = 110
"""Columns where the output is no terminal."""
LEAST_WIDTH = 80
MOST_NAMES = 3
"""Of functions that became hard."""


def print_report(report: Report, stream: TextIO, width: int | None = None) -> None:
    """Writes the table; plain text without escape sequences unless `stream` is a terminal.

    Args:
        report: what to show.
        stream: usually standard output.
        width: columns; None asks the terminal.
    """
    terminal = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    if width is None:
        width = max(LEAST_WIDTH, terminal.width) if terminal.is_terminal else PIPE_WIDTH
    if terminal.is_terminal:
        terminal.width = width
        _print(report, terminal)
        return
    text = StringIO()
    _print(report, Console(file=text, width=width, highlight=False, markup=False, emoji=False))
    stream.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _print(report: Report, console: Console) -> None:
    console.print(_layers(report, console.width))
    console.print()
    console.print(_pairs(totals_lines(report.totals)))
    if report.footprint is not None:
        console.print()
        console.print(_pairs(footprint_lines(report.footprint)))
    pruned = pruning_lines(report)
    if pruned:
        console.print()
        console.print(_pairs(pruned))
    if report.ternary is not None:
        console.print()
        console.print(_pairs(ternary_lines(report.ternary, MOST_NAMES)))
    if report.hardware is not None:
        _print_hardware(report.hardware, console)
    rows = dice_rows(report)
    if rows:
        console.print()
        console.print(_numbers(DICE_HEAD, rows))
        console.print(Text(dice_text(report)))
    console.print()
    console.print(Text(calibration_text(report)))
    console.print(Text(verification_text(report)))
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}"))


def _layers(report: Report, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    name_width = max(14, min(40, width - 68)) if width < 110 else 30
    table.add_column("Layer", no_wrap=True, min_width=14, overflow="crop")
    shown = [column for column in COLUMNS if column.from_width <= width]
    for column in shown:
        table.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=True,
            overflow="crop",
        )
    for row in report.layers:
        cells = [Text(safe_name(row.name, name_width))]
        cells += [Text(column.text(row)) for column in shown]
        table.add_row(*cells)
    return table


def _print_hardware(hardware: HardwareReport, console: Console) -> None:
    console.print()
    rows = [(safe_name(row[0], 34), *row[1:]) for row in hardware_rows(hardware)]
    console.print(_numbers(HARDWARE_HEAD, rows))
    console.print()
    console.print(_pairs(hardware_lines(hardware)))
    if hardware.resources:
        console.print()
        console.print(_numbers(RESOURCES_HEAD, resource_rows(hardware.resources)))


def _pairs(lines: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column()
    for what, value in lines:
        table.add_row(what, value)
    return table


def _numbers(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(head):
        table.add_column(title, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
