"""The flags about budgets in place of bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

BUDGET_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--mean-wbits",
        type=float,
        metavar="BITS",
        help="Mean bits of weights, dealt out to the layers by sensitivity (2 is ternary).",
    ),
    click.option(
        "--max-bytes",
        metavar="N|N%",
        help="Assign widths so that the constants take at most so many bytes (of those at 8 bits).",
    ),
    click.option(
        "--max-bops",
        metavar="N|N%",
        help="Assign widths within so many bit operations (products times bits of both factors).",
    ),
    click.option(
        "--max-arena", metavar="N|N%", help="Assign widths within so many bytes of working memory."
    ),
    click.option("--max-luts", metavar="N|N%", help="Assign widths within so many LUTs (hdl)."),
    click.option(
        "--max-ram-bits",
        metavar="N|N%",
        help="Assign widths within so many bits of weights, line buffers and FIFOs (hdl).",
    ),
    click.option(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="Search widths on this Dask cluster instead of local processes.",
    ),
    click.option(
        "--search-cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where a search keeps what it measured.  [~/.cache/qcompile/search]",
    ),
)
"""In the order of `--help`."""


def budget_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(BUDGET_FLAGS):
        command = flag(command)
    return command
