"""The flags about pruning, which `qcompile MODEL.onnx` and `qcompile sweep` share."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qcompile.errors import UsageError
from qcompile.prune_options import (
    AUTO,
    PRUNE_DEFAULTS,
    PruneConstants,
    PruneMethod,
    PruneScope,
    parse_ratio,
    prunes,
)

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def _values(kind: type[enum.Enum]) -> click.Choice[str]:
    return click.Choice([item.value for item in kind])


PRUNE_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--prune",
        is_flag=False,
        flag_value=AUTO,
        metavar="[RATIO]",
        help="Remove this share of filters; without RATIO the largest that keeps "
        "--max-dice-drop.  [0]",
    ),
    click.option(
        "--prune-method",
        "--importance",
        type=_values(PruneMethod),
        help="What tells filters that matter: error on --calib, activation times gradient (taylor, "
        "with torch), size of weights, scale of batch norms, a file.  [auto: error with --calib, "
        "else l1]",
    ),
    click.option(
        "--prune-importance",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Scores of filters by ONNX node, .json or .csv (implies --prune-method file).",
    ),
    click.option(
        "--prune-scope",
        type=_values(PruneScope),
        help="One ratio for the whole network, or the same in every layer.  [global]",
    ),
    click.option(
        "--prune-flops",
        metavar="N|N%",
        help="Remove filters until at most so many floating point operations are left.",
    ),
    click.option(
        "--prune-bytes",
        metavar="N|N%",
        help="Remove filters until the weights take at most so many bytes.",
    ),
    click.option(
        "--prune-multiple",
        type=int,
        metavar="N",
        help="Pruned layers keep a multiple of N filters.  [1]",
    ),
    click.option(
        "--prune-exclude",
        multiple=True,
        metavar="PATTERN",
        help="Layers whose filters all stay, such as 'enc1/*'; may be repeated.",
    ),
    click.option(
        "--prune-constants",
        type=_values(PruneConstants),
        help="Fold what the bias of a removed filter contributed, or drop it.  [fold]",
    ),
    click.option(
        "--prune-refit/--no-prune-refit",
        default=None,
        help="Fit the layers behind removed filters to what they computed on --calib.  "
        "[with --calib]",
    ),
)
"""In the order of `--help`."""


def prune_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(PRUNE_FLAGS):
        command = flag(command)
    return command


def prune_fields(flags: dict[str, Any]) -> None:
    """Turns what click parsed into fields of `CompileOptions`, in place."""
    kinds = {
        "prune_method": PruneMethod,
        "prune_scope": PruneScope,
        "prune_constants": PruneConstants,
    }
    for name, kind in kinds.items():
        if flags[name] is not None:
            flags[name] = kind(flags[name])
    if flags["prune"] is not None:
        flags["prune"] = parse_ratio(flags["prune"])
    flags["prune_exclude"] = flags["prune_exclude"] or None


def refuse_idle_flags(flags: dict[str, Any], options: CompileOptions) -> None:
    """
    Raises:
        UsageError: flags say how to prune where nothing is pruned.
    """
    if prunes(options):
        return
    for name, default in PRUNE_DEFAULTS.items():
        if flags.get(name) not in (None, default):
            raise UsageError(
                f"--{name.replace('_', '-')}: prunes nothing by itself; give --prune, "
                f"--prune-flops or --prune-bytes, too"
            )
