"""`qcompile importance MODEL.onnx`: the file of Taylor scores for `--prune-importance`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from qcompile.commands.compile import check_inputs, command, options_of, start_logging
from qcompile.commands.taylor import DEFAULTS, check_torch, taylor_flags, taylor_options
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars

# fmt: off
HERE = frozenset(
    {
        "model", "calib", "calib_images", "input_shape", "input_kind", "input_scale", "input_mean",
        "input_std", "data", "data_keys", "images", "masks", "window", "slices", "mask_values",
        "tile_halo", "metric_threshold", "config", "seed", "verbose", "quiet",
    }
)
# fmt: on
"""Flags of the main command about the model and the images."""
FLAGS = [flag for flag in command.params if flag.name in HERE]


@click.command(
    "importance",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Then 'qcompile MODEL.onnx --prune RATIO --prune-importance FILE.json' prunes by them.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Where the scores go.  [<model>-importance.json]",
)
@taylor_flags
@click.option("--batch", type=int, default=DEFAULTS.batch, show_default=True,
              help="Images at a time.")  # fmt: skip
def importance(
    model: Path,
    output: Path | None,
    batch: int,
    **given: Any,
) -> None:
    """Score every filter of a network by activation times gradient (first-order Taylor expansion).

    Images are those of --calib, or of --data (train_x where it has some). Labels are needed for the
    gradient of the loss alone.
    """
    check_torch("importance")
    chosen = {name: given.pop(name) for name in ("of", "mode", "raw_gradients", "unit_layers")}
    given |= {
        flag.name: () if isinstance(flag, click.Option) and flag.multiple else None
        for flag in command.params
        if flag.name not in HERE and flag.expose_value
    }
    options = options_of(given)
    start_logging(options.verbosity)
    check_inputs(model, options)
    path = output or Path(f"{model.stem}-importance.json")
    if path.suffix.lower() != ".json" or path.is_dir():
        raise UsageError(f"--output {path}: is no name of a .json file")
    from qcompile.importance_file import importance_text
    from qcompile.output import write_file
    from qcompile.train.importance import model_scores

    taylor = taylor_options(chosen, batch, options.seed)
    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scores = model_scores(
            model, options, taylor, lambda done, total: bars("importance", done, total)
        )
    write_file(path, importance_text(scores))
    if options.verbosity >= 0:
        count = sum(len(values) for values in scores.values())
        click.echo(f"{count} filters of {len(scores)} nodes: {path}")
