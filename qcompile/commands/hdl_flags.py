"""The flags about accelerators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from qcompile.hdl_options import FifoPolicy

Command = TypeVar("Command", bound=Callable[..., Any])

HDL_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option("--device", metavar="NAME", help="FPGA to build for (hdl), see --list-devices."),
    click.option("--clock", type=float, metavar="MHZ", help="Clock to plan for (hdl).  [100]"),
    click.option("--target-fps", type=float, metavar="N", help="Frames a second to reach (hdl)."),
    click.option(
        "--multipliers", type=int, metavar="N", help="Use at most N hardware multipliers (hdl)."
    ),
    click.option(
        "--fold",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Parallelism of each operator (hdl), in place of the one that would be chosen.",
    ),
    click.option(
        "--fifos",
        type=click.Choice([item.value for item in FifoPolicy]),
        help="FIFOs for full rate, or as small as can be (hdl).  [rate]",
    ),
    click.option(
        "--synth",
        is_flag=True,
        default=None,
        help="Synthesise what was written for --device and report area and clock (hdl).",
    ),
)
"""In the order of `--help`."""


def hdl_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(HDL_FLAGS):
        command = flag(command)
    return command
