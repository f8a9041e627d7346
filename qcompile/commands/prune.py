"""`qcompile prune MODEL.onnx --data train.npz`: pruning in steps, with training after each."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import click

from qcompile.commands.compile import check_inputs, command, options_of, start_logging
from qcompile.commands.finetune import finetune
from qcompile.commands.prune_flags import prune_fields
from qcompile.commands.sweep import print_table
from qcompile.commands.taylor import check_torch, taylor_flags, taylor_options
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars
from qcompile.prune_options import PruneMethod

# fmt: off
PRUNING = frozenset(
    {
        "prune", "prune_flops", "prune_method", "prune_scope", "prune_constants", "prune_refit",
        "prune_multiple", "prune_exclude",
    }
)
HERE = PRUNING | {
    "model", "calib_images", "input_shape", "input_kind", "input_scale", "input_mean", "input_std",
    "data_keys", "images", "masks", "window", "slices", "mask_values", "tile_halo",
    "metric_threshold", "empty_dice", "dice_over", "config", "seed", "workers", "verbose", "quiet",
}
"""Flags of the main command about the model, the images, and what goes."""
TRAINING = frozenset(
    {
        "batch", "lr", "patience", "validate_every", "augment", "class_weights", "dice_weight",
        "boundary", "torch_device", "resume",
    }
)
"""Flags of `qcompile finetune` about the training."""
# fmt: on
FLAGS = [flag for flag in command.params if flag.name in HERE]
FLAGS += [flag for flag in finetune.params if flag.name in TRAINING | {"data", "val"}]


@click.command(
    "prune",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Then 'qcompile finetune FOLDER/model.onnx --data train.npz --wbits 4 --abits 6' trains "
    "the small network with its formats.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Output folder.  [<model>-pruned]")  # fmt: skip
@click.option(
    "--steps", type=int, default=5, show_default=True, help="Filters go in so many steps."
)
@click.option(
    "--epochs", type=int, default=10, show_default=True, help="Of training, after each step."
)
@taylor_flags
def prune(
    model: Path, val: str | None, output: Path | None, steps: int, epochs: int, **given: Any
) -> None:
    """Remove filters of a network step by step, and train what is left after each step.

    Filters are chosen by Taylor scores (--prune-method has others), until --prune RATIO or
    --prune-flops N is reached. Writes every step into a folder, and the last network as model.onnx,
    in float, with a table of parameters, FLOPs, Dice and IoU.
    """
    check_torch("prune")
    from qcompile.output import check_output, write_files
    from qcompile.prune_sweep import csv_text, json_text
    from qcompile.train.augment import parse_augment
    from qcompile.train.losses import Loss
    from qcompile.train.options import TrainOptions
    from qcompile.train.prune_steps import StepOptions, prune_and_train
    from qcompile.train.sources import training_options

    own = {name: given.pop(name) for name in TRAINING}
    chosen = {name: given.pop(name) for name in ("of", "mode", "raw_gradients", "unit_layers")}
    pruning = {name: given.pop(name) for name in PRUNING}
    prune_fields(pruning)
    for flag in command.params:
        if flag.expose_value and flag.name not in given and flag.name not in ("model", "output"):
            given[str(flag.name)] = () if isinstance(flag, click.Option) and flag.multiple else None
    options = options_of(given | {"output": None, "wbits": "32", "abits": "32"})
    start_logging(options.verbosity)
    check_inputs(model, options)
    if val is not None and not Path(val).is_file():
        raise UsageError(f"--val {val}: no such file; give a .npz with images and labels")
    ratio = pruning.pop("prune") or 0.0
    if isinstance(ratio, str):
        raise UsageError("--prune: needs a ratio here, such as 0.5")
    taylor = taylor_options(chosen, own["batch"], options.seed)
    plan = StepOptions(steps, ratio, pruning.pop("prune_flops"), taylor)
    train = TrainOptions(
        epochs,
        own["batch"],
        own["lr"],
        own["patience"],
        own["validate_every"],
        parse_augment(own["augment"]),
        Loss(None, own["dice_weight"], own["boundary"]),
        own["class_weights"],
        device=own["torch_device"],
        resume=own["resume"],
        seed=options.seed,
    )
    folder = output or Path(f"{model.stem}-pruned")
    check_output(folder)
    training, validation = training_options(options, val)
    pruning["prune_method"] = pruning["prune_method"] or PruneMethod.TAYLOR
    said = {name: value for name, value in pruning.items() if value is not None}
    # Some ratio: it is what the flags about pruning refer to.
    training = dataclasses.replace(training, prune=0.5, **said)
    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        rows = prune_and_train(model, training, validation, plan, train, folder, bars)
    write_files(folder, {"table.csv": csv_text(rows), "table.json": json_text(rows, model.name)})
    if options.verbosity >= 0:
        print_table(rows)
        click.echo(f"pruned and trained: {folder / 'model.onnx'}")
