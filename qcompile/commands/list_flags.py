"""The flags that print what there is, and end the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from qcompile import __version__

        click.echo(f"qcompile {__version__}")
        context.exit()


def _print_operators(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from qcompile.importer.folding import BOUNDS
        from qcompile.importer.table import CONVERTERS

        for name in sorted({*CONVERTERS, *BOUNDS}):
            click.echo(name if name in CONVERTERS else f"{name:24} of constants only")
        context.exit()


def _print_passes(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from qcompile.pipeline import list_passes

        for name, purpose in list_passes():
            click.echo(f"{name:24} {purpose}")
        context.exit()


def _print_devices(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from qcompile.devices import DEVICES

        for name, device in DEVICES.items():
            click.echo(f"{name:12} {device}")
        context.exit()


LIST_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--list-passes",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_passes,
        help="List the passes in order.",
    ),
    click.option(
        "--list-ops",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_operators,
        help="List the ONNX operators that can be imported.",
    ),
    click.option(
        "--list-devices",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_devices,
        help="List the FPGAs for --device.",
    ),
    click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version.",
    ),
)
"""In the order of `--help`."""


def list_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(LIST_FLAGS):
        command = flag(command)
    return command
