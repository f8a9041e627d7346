"""`qcompile sweep MODEL.onnx`: what pruning costs at several ratios."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompile.commands.compile import check_inputs, command, options_of, start_logging
from qcompile.commands.taylor import with_scores
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars

if TYPE_CHECKING:
    from qcompile.prune_sweep import SweepRow

DEFAULT_RATIOS = "0.1,0.2,0.3,0.4,0.5"
# fmt: off
NOT_HERE = frozenset(
    {
        "target", "output", "min_dice", "max_dice_drop", "mean_wbits", "max_bytes", "max_bops",
        "max_arena", "max_luts", "max_ram_bits", "scheduler", "search_cache", "prune",
        "prune_flops", "prune_bytes", "verify", "taps", "energy_table", "measure", "dump_ir",
        "report", "entry", "separate_weights", "device", "clock", "target_fps", "multipliers",
        "fold", "fifos", "synth", "onnx_input", "onnx_weights", "mcu", "list_passes", "list_ops",
        "list_devices", "version",
    }
)
# fmt: on
"""Flags of the main command that choose a single result, or where it goes."""
FLAGS = [flag for flag in command.params if flag.name not in NOT_HERE]


@click.command(
    "sweep",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each row is a compilation that 'qcompile MODEL.onnx --prune RATIO' repeats (float rows "
    "with --wbits 32 --abits 32).",
)
@click.option(
    "--ratios",
    default=DEFAULT_RATIOS,
    show_default=True,
    metavar="X,X...",
    help="Shares of the filters to remove; 0 is always measured, too.",
)
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="The table as CSV.")
@click.option("--json", type=click.Path(path_type=Path), metavar="FILE", help="The table as JSON.")
def sweep(model: Path, ratios: str, csv: Path | None, json: Path | None, **given: Any) -> None:
    """Prune a network at several ratios and measure Dice and IoU of each.

    The rows are of the pruned network in float and, with --wbits or --abits, of the compiled one.
    Filters, parameters, FLOPs and bytes of the weights stand beside the scores.
    """
    compiled = given["wbits"] is not None or given["abits"] is not None
    given |= {
        flag.name: () if isinstance(flag, click.Option) and flag.multiple else None
        for flag in command.params
        if flag.name in NOT_HERE and flag.expose_value
    }
    # Any ratio at all: the flags about pruning are to be taken for what they are.
    given["prune"] = "0.5"
    options = options_of(given)
    start_logging(options.verbosity)
    check_inputs(model, options)
    for flag, path in (("--csv", csv), ("--json", json)):
        if path is not None and path.is_dir():
            raise UsageError(f"{flag} {path}: is a folder; give the name of a file")
    from qcompile.output import write_file
    from qcompile.prune_sweep import csv_text, json_text
    from qcompile.prune_sweep import sweep as run_sweep

    with with_scores(model, options) as scored, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with ProgressBars(shown=options.verbosity >= 0) as bars:
            rows = run_sweep(model, scored, _numbers(ratios), compiled, bars)
    if csv is not None:
        write_file(csv, csv_text(rows))
    if json is not None:
        write_file(json, json_text(rows, model.name))
    if options.verbosity >= 0:
        print_table(rows)


def print_table(rows: Sequence[SweepRow]) -> None:
    """For people."""
    from qcompile.prune_sweep import table

    head, cells = table(rows)
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for line in (head, *cells):
        parts = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(parts).rstrip())


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--ratios: '{text}' is no list of ratios; write e.g. 0.1,0.2") from None
