"""`qcompile ensemble --data train.npz`: networks on bootstrap samples, for `qcompile suggest`."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import click

from qcompile.commands.compile import check_inputs, command, options_of, start_logging
from qcompile.commands.finetune import TRAINING, train_options
from qcompile.commands.finetune import finetune as finetune_command
from qcompile.commands.format_flags import says_formats
from qcompile.errors import UsageError
from qcompile.progress import ProgressBars

FLAGS = [flag for flag in finetune_command.params if flag.name not in ("model", "output")]


@click.command(
    "ensemble",
    params=FLAGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Then 'qcompile suggest --models FOLDER --pool IMAGES --count N' asks them.",
)
@click.option("--members", type=int, default=5, show_default=True, help="Networks to train.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="Train this network on, in place of small U-Nets that start at random.",
)
@click.option("--base", type=int, default=8, show_default=True,
              help="Channels of a U-Net's first level.")  # fmt: skip
@click.option("--depth", type=int, default=4, show_default=True,
              help="How often a U-Net halves the size.")  # fmt: skip
@click.option("--size", metavar="H,W", help="Input of the U-Nets.  [the first image's size]")
@click.option(
    "--format-epochs",
    type=int,
    metavar="N",
    help="Epochs with formats, after --epochs in floats.  [as --epochs]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("ensemble"),
              show_default=True, metavar="DIR", help="Output folder.")  # fmt: skip
def ensemble(
    members: int,
    model: Path | None,
    base: int,
    depth: int,
    size: str | None,
    format_epochs: int | None,
    output: Path,
    val: str | None,
    **given: Any,
) -> None:
    """Train networks on bootstrap samples of labelled images: an ensemble whose disagreement says
    what it does not know.

    Small U-Nets in floats, or with --model copies of a network. With --wbits, --abits or
    --quantizer each is then trained with these formats. Without validation data the images that a
    network did not draw choose its epoch.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("ensemble needs torch: pip install 'qcompile[train]'")
    from qcompile.output import check_output
    from qcompile.train.ensemble_run import EnsembleOptions, parse_size
    from qcompile.train.ensemble_run import run_ensemble as run
    from qcompile.train.sources import training_options

    own = {name: given.pop(name) for name in TRAINING}
    for flag in command.params:
        if flag.expose_value and flag.name not in given and flag.name != "model":
            given[str(flag.name)] = () if isinstance(flag, click.Option) and flag.multiple else None
    given["calib"] = given["data"] or given["images"]
    quantised = says_formats(given)
    if not quantised and model is not None:
        given["wbits"] = given["abits"] = "32"
    options = options_of(given)
    start_logging(options.verbosity)
    if model is not None:
        check_inputs(model, options)
    elif options.data is not None and not Path(options.data).is_file():
        raise UsageError(f"--data {options.data}: no such file; give a .npz with images and labels")
    if val is not None and not Path(val).is_file():
        raise UsageError(f"--val {val}: no such file; give a .npz with images and labels")
    train = train_options(own, options.seed)
    if format_epochs is not None and (format_epochs < 1 or not quantised):
        raise UsageError(f"--format-epochs {format_epochs}: use 1 or more, and --wbits or such")
    check_output(output)
    training, validation = training_options(options, val)
    chosen = EnsembleOptions(
        members,
        base,
        depth,
        None if size is None else parse_size(size),
        format_epochs or train.epochs,
        quantised,
    )
    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        run(output, model, training, validation, train, chosen, bars)
    if options.verbosity >= 0:
        click.echo(f"{members} networks: {output}")
