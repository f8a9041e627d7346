"""`qcompile finetune MODEL.onnx --data train.npz`: training of a network as it will be compiled."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompile.commands.compile import check_inputs, command, options_of, start_logging
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars

if TYPE_CHECKING:
    from qcompile.train.finetune import Finetuned
    from qcompile.train.options import TrainOptions

# fmt: off
NOT_HERE = frozenset(
    {
        "target", "output", "calib", "data", "output_kind", "min_dice", "max_dice_drop",
        "mean_wbits", "max_bytes", "max_bops", "max_arena", "max_luts", "max_ram_bits",
        "scheduler", "search_cache", "prune", "prune_flops", "prune_bytes", "prune_method",
        "prune_scope", "prune_constants", "prune_refit", "prune_multiple", "prune_exclude",
        "prune_importance", "object_metrics", "verify", "taps", "energy_table", "measure",
        "dump_ir", "report", "entry", "separate_weights", "device", "clock", "target_fps",
        "multipliers", "fold", "fifos", "synth", "onnx_input", "onnx_weights", "list_passes",
        "list_ops", "list_devices", "mcu", "version",
    }
)
# fmt: on
"""Flags of the main command that are about what is emitted; its plan is for all of that."""
FLAGS = [flag for flag in command.params if flag.name not in NOT_HERE]
TRAINING = (
    "epochs", "batch", "lr", "patience", "validate_every", "augment", "class_weights",
    "dice_weight", "boundary", "distill", "fixed_scales", "torch_device", "resume",
    "epoch_steps", "portions",
)  # fmt: skip
"""Flags that become `TrainOptions`."""


@click.command(
    "finetune",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Then 'qcompile FOLDER/model.onnx --config FOLDER/plan.toml' compiles the network; it "
    "needs no --calib.",
)
@click.option(
    "--data",
    metavar="FILE.npz",
    help="Images and labels to train on (train_x and train_y, x and y, images and labels).",
)
@click.option(
    "--val",
    metavar="FILE.npz",
    help="Images and labels for validation.  [val_x and val_y of --data, or a fifth of it]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Output folder.  [<model>-finetuned]")  # fmt: skip
@click.option("--epochs", type=int, default=40, show_default=True, help="At most so many.")
@click.option("--batch", type=int, default=8, show_default=True, help="Images in a step.")
@click.option("--lr", type=float, default=5e-4, show_default=True, help="Learning rate of Adam.")
@click.option(
    "--patience",
    type=int,
    default=10,
    show_default=True,
    help="Stop after so many epochs without a better Dice; 0: never.",
)
@click.option(
    "--validate-every", type=int, default=1, show_default=True, help="Epochs between validations."
)
@click.option(
    "--epoch-steps",
    type=int,
    default=0,
    metavar="N",
    help="End epochs after N steps, each on other images.  [all images]",
)
@click.option(
    "--portions",
    default="",
    metavar="P,P,...,100",
    help="Incremental quantization of --quantizer pow2: freeze these percentages of each layer's "
    "weights one after the other, the largest first, and train the others on.",
)
@click.option(
    "--augment",
    default="all",
    show_default=True,
    metavar="KIND,KIND...",
    help="Vary images by flips, rotations, shifts, brightness; or none.",
)
@click.option(
    "--class-weights",
    default="",
    metavar="X,X...|balanced",
    help="Weights of the classes in the cross-entropy, background first.  [all alike]",
)
@click.option(
    "--dice-weight",
    type=float,
    default=1.0,
    show_default=True,
    help="Weight of soft Dice in the loss; cross-entropy has 1.",
)
@click.option(
    "--boundary",
    type=float,
    default=0.0,
    show_default=True,
    help="What pixels at the boundary of a class weigh more.",
)
@click.option(
    "--distill",
    type=float,
    default=0.0,
    show_default=True,
    help="Weight of the distance from what the float network says.",
)
@click.option("--fixed-scales", is_flag=True, help="Train weights alone, not scales.")
@click.option(
    "--device",
    "torch_device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    help="Where to train.",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the output folder.")
def finetune(model: Path, val: str | None, output: Path | None, **given: Any) -> None:
    """Train a float network as it will be compiled: with the integer formats of weights and
    activations.

    Starts where quantisation without training ends, keeps the epoch with the best Dice of the
    compiled network, and writes an ONNX model, the plan that compiles it, learning curves, and a
    checkpoint after every epoch.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("finetune needs torch: pip install 'qcompile[train]'")
    from qcompile.output import check_output, write_files
    from qcompile.train.finetune import finetune as run
    from qcompile.train.sources import training_options

    own = {name: given.pop(name) for name in TRAINING}
    for flag in command.params:
        if flag.name in NOT_HERE and flag.expose_value and flag.name not in given:
            given[str(flag.name)] = () if isinstance(flag, click.Option) and flag.multiple else None
    # Training images are calibration images, too: see `training_options`.
    given["calib"] = given["data"] or given["images"]
    options = options_of(given)
    start_logging(options.verbosity)
    check_inputs(model, options)
    if val is not None and not Path(val).is_file():
        raise UsageError(f"--val {val}: no such file; give a .npz with images and labels")
    train = train_options(own, options.seed)
    folder = output or Path(f"{model.stem}-finetuned")
    check_output(folder)
    training, validation = training_options(options, val)
    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = run(model, training, train, folder, validation, bars)
    write_files(folder, result.files)
    if options.verbosity >= 0:
        _print(result, folder)


def train_options(given: Mapping[str, Any], seed: int) -> TrainOptions:
    """What the flags `TRAINING` say."""
    from qcompile.train.augment import parse_augment
    from qcompile.train.losses import Loss
    from qcompile.train.options import TrainOptions
    from qcompile.train.portions import parse_portions

    return TrainOptions(
        given["epochs"],
        given["batch"],
        given["lr"],
        given["patience"],
        given["validate_every"],
        parse_augment(given["augment"]),
        Loss(None, given["dice_weight"], given["boundary"], given["distill"]),
        given["class_weights"],
        not given["fixed_scales"],
        given["torch_device"],
        given["resume"],
        seed,
        given["epoch_steps"],
        parse_portions(given["portions"]),
    )


def _print(result: Finetuned, folder: Path) -> None:
    last = result.epochs[-1].epoch
    for what, dice in (
        ("float network", result.dice_float),
        ("compiled, before training", result.dice_start),
        (f"compiled, epoch {result.best} of {last}", result.dice),
    ):
        click.echo(f"Dice {dice:.4f}  {what}")
    click.echo(f"{result.images[0]} images to train on, {result.images[1]} to validate")
    click.echo(f"compile: qcompile {folder / 'model.onnx'} --config {folder / 'plan.toml'}")
