"""`qcompile MODEL.onnx`: the main command, from flags to files.

Heavy imports stay inside functions, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompile.commands.budget_flags import budget_flags
from qcompile.commands.data_flags import data_fields, data_flags
from qcompile.commands.hdl_flags import hdl_flags
from qcompile.commands.list_flags import list_flags
from qcompile.commands.prune_flags import prune_fields, prune_flags, refuse_idle_flags
from qcompile.commands.taylor import with_scores
from qcompile.data_options import DATA_PATHS
from qcompile.errors import GateError, QCompileError, UsageError, VerificationError
from qcompile.format_options import QUANTIZERS
from qcompile.hdl_options import FifoPolicy
from qcompile.onnx_options import OnnxInput, OnnxWeights
from qcompile.options import (
    Effort,
    InputChoice,
    OutputKind,
    RangeMethod,
    Taps,
    TernaryTanhForm,
    parse_input_shape,
    parse_numbers,
    parse_target,
)
from qcompile.progress import ProgressBars

if TYPE_CHECKING:
    from qcompile.options import CompileOptions
    from qcompile.result import CompileResult
    from qcompile.search.found import Found

logger = logging.getLogger("qcompile")

_WIDTHS = "2..8, 16, ternary, binary, 32 for float, or a format such as"


def _values(kind: Any) -> click.Choice[str]:
    return click.Choice([item.value for item in kind])


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Further commands: 'qcompile sweep --help' prunes at several ratios, 'qcompile finetune "
    "--help' trains, 'qcompile prune --help' prunes and trains in turns, 'qcompile importance "
    "--help' scores filters. Exit codes: 0 done, 2 bad input, usage or unsupported operator, 3 "
    "verification found a difference, 4 a gate was not met.",
)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "--target",
    metavar="c|hdl|sim|qdq|qcdq|qonnx",
    help="C program, accelerator for FPGAs, the network for the simulator, or a quantised ONNX "
    "model.  [c]",
)
@click.option(
    "--wbits",
    "--wq",
    metavar="BITS",
    help=f"Bits of weights: {_WIDTHS} Q0.4.  [8, or what --quantizer implies]",
)
@click.option(
    "--abits",
    "--aq",
    metavar="BITS",
    help=f"Bits of activations: {_WIDTHS} Q6.0.  [8, or what --quantizer implies]",
)
@click.option("--quantizer", type=click.Choice(QUANTIZERS), help="Family of formats.  [scaled]")
@click.option(
    "--first-last-bits", metavar="BITS", help="First and last layer, input and output.  [8]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Output folder.  [<model>-qcompile]"
)
@click.option(
    "--calib",
    metavar="FILE|DIR",
    help="Calibration images: .npz (FILE.npz:KEY chooses an array), .npy, or what --images takes.",
)
@click.option("--calib-images", type=int, metavar="N", help="Use at most N of them.  [32]")
@click.option(
    "--effort",
    type=_values(Effort),
    help="How much work goes into keeping the result; nearest needs no images.  [normal, without "
    "--calib nearest]",
)
@click.option(
    "--range-method", type=_values(RangeMethod), help="How ranges follow from the images.  [best]"
)
@click.option(
    "--input-shape",
    multiple=True,
    metavar="NAME=1,1,256,256",
    help="Shape of an input with dynamic axes; repeat for several inputs.",
)
@click.option(
    "--input-kind", type=_values(InputChoice), help="What the compiled network takes.  [auto]"
)
@click.option(
    "--input-scale", metavar="X[,X...]", help="Input = (pixel * scale - mean) / std.  [1/255]"
)
@click.option("--input-mean", metavar="X[,X...]", help="One, or one for each channel.  [0]")
@click.option("--input-std", metavar="X[,X...]", help="One, or one for each channel.  [1]")
@click.option(
    "--output-kind", type=_values(OutputKind), help="What the compiled network returns.  [auto]"
)
@click.option(
    "--ternary-tanh",
    type=_values(TernaryTanhForm),
    help="What a ternary tanh becomes: its limit -1, 0, 1, or a table of the smooth function.  "
    "[hard]",
)
@data_flags
@click.option("--min-dice", type=float, help="Gate: least Dice of the compiled network.")
@click.option(
    "--max-dice-drop",
    type=float,
    help="Most Dice that compilation may cost: without --wbits and --abits it chooses them, with "
    "them it is a gate.",
)
@budget_flags
@prune_flags
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with options and formats of single layers (a written plan.toml, too).",
)
@click.option(
    "--verify",
    is_flag=True,
    default=None,
    help="Run what was written (the C, the accelerator) and compare it with the simulator.",
)
@click.option(
    "--taps",
    type=_values(Taps),
    help="Write the integer attention maps of the first inputs, and show them in the report.",
)
@click.option(
    "--energy-table",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Energy of operations and memory for the analytical figures.  [45 nm]",
)
@click.option(
    "--measure",
    is_flag=True,
    default=None,
    help="Time the C program on this machine, with its energy where counters can be read.",
)
@click.option(
    "--dump-ir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the graph after each pass.",
)
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Another copy of report.json."
)
@click.option("--entry", metavar="NAME", help="Prefix of the names written.  [model]")
@click.option(
    "--separate-weights",
    is_flag=True,
    default=None,
    help="Put the packed weights into a header of their own.",
)
@click.option(
    "--mcu",
    is_flag=True,
    default=None,
    help="C for microcontrollers: least memory instead of most speed.",
)
@hdl_flags
@click.option(
    "--onnx-input",
    type=_values(OnnxInput),
    help="What an ONNX model takes: the floats of MODEL.onnx, or pixels.  [float32]",
)
@click.option(
    "--onnx-weights",
    type=_values(OnnxWeights),
    help="Storage of weights of at most 4 bits (qdq); int4 needs opset 21.  [int8]",
)
@click.option("--seed", type=int, help="Of everything that is drawn at random.  [0]")
@click.option(
    "--workers", type=int, metavar="N", help="Processes for evaluation; 0: all cores.  [0]"
)
@click.option("-v", "--verbose", count=True, help="Say how long stages take; twice: name passes.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors: no table, bars or warnings.")
@list_flags
def command(model: Path, **given: Any) -> None:
    """Compile a trained ONNX segmentation network to bit-exact integer C or hardware.

    Reads MODEL.onnx, quantises it, writes C code (or an accelerator, or a file for the simulator)
    with a report into the output folder, and prints a table of all layers.
    """
    options = options_of(given)
    start_logging(options.verbosity)
    folder = options.output or Path(f"{model.stem}-qcompile")
    check_inputs(model, options)
    _check_outputs(folder, options)
    with with_scores(model, options) as scored:
        result = _compile(model, scored)
        for warning in result.report.warnings:
            logger.warning("%s", warning)
        _write(folder, result, model)
    if options.verbosity >= 0:
        from qcompile.report.table import print_report

        print_report(result.report, sys.stdout)
        if result.searched is not None:
            _print_search(result.searched)
    _check_gates(result)


def _print_search(found: Found) -> None:
    """Why these widths; the whole trade-off is in the output folder."""
    from qcompile.search.reasons import summary

    for line in summary(found):
        click.echo(f"widths: {line}")


def options_of(given: dict[str, Any]) -> CompileOptions:
    """The options of the command line over those of --config."""
    from qcompile.config import resolve

    flags = {name.replace("-", "_"): value for name, value in given.items()}
    flags["verbosity"] = -1 if flags.pop("quiet") else flags.pop("verbose")
    flags.pop("verbose", None)
    shapes = dict(parse_input_shape(text) for text in flags.pop("input_shape"))
    if shapes:
        flags["input_shapes"] = shapes
    converters = {
        "target": parse_target,
        "input_kind": InputChoice,
        "output_kind": OutputKind,
        "effort": Effort,
        "range_method": RangeMethod,
        "ternary_tanh": TernaryTanhForm,
        "taps": Taps,
        "fifos": FifoPolicy,
        "onnx_input": OnnxInput,
        "onnx_weights": OnnxWeights,
    }
    for name, convert in converters.items():
        if flags[name] is not None:
            flags[name] = convert(flags[name])
    prune_fields(flags)
    data_fields(flags)
    for name in ("input_scale", "input_mean", "input_std"):
        if flags[name] is not None:
            flags[name] = parse_numbers(flags[name], f"--{name.replace('_', '-')}")
    options = resolve(flags)
    refuse_idle_flags(flags, options)
    return options


def start_logging(verbosity: int) -> None:
    """Sends what is logged to standard error; -1 shows errors alone, 2 every pass."""
    levels = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("qcompile: %(levelname)s: %(message)s"))
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(levels.get(verbosity, logging.DEBUG))


def check_inputs(model: Path, options: CompileOptions) -> None:
    """Finds files that are missing before the work instead of after it.

    Raises:
        UsageError: one is.
    """
    if not model.exists():
        raise UsageError(f"{model}: no such file; give the path of an ONNX model")
    if model.is_dir():
        raise UsageError(f"{model}: is a folder; give the path of an ONNX model")
    # Last what another flag may have set: fine-tuning calibrates on its training data.
    for name in sorted(DATA_PATHS, key=lambda known: known == "calib"):
        flag, text = f"--{name}", getattr(options, name)
        if text is not None and not any(
            Path(place).exists() for place in (text, text.rpartition(":")[0] or text)
        ):
            raise UsageError(f"{flag} {text}: no such file or folder")
    if options.fold is not None and not options.fold.is_file():
        known = "is not a file" if options.fold.exists() else "no such file"
        raise UsageError(f"--fold {options.fold}: {known}; give a TOML file")
    table = options.energy_table
    if table is not None and not table.is_file():
        known = "is not a file" if table.exists() else "no such file"
        raise UsageError(f"--energy-table {table}: {known}; give a TOML file")
    scores = options.prune_importance
    if scores is not None and not scores.is_file():
        known = "is not a file" if scores.exists() else "no such file"
        raise UsageError(f"--prune-importance {scores}: {known}; give a .json or .csv file")


def _check_outputs(folder: Path, options: CompileOptions) -> None:
    """Finds places that cannot be written before the work instead of after it."""
    from qcompile.output import check_output

    check_output(folder)
    if options.report is not None and options.report.is_dir():
        raise UsageError(f"--report {options.report}: is a folder; give the name of a file")
    if options.dump_ir is not None and options.dump_ir.exists() and not options.dump_ir.is_dir():
        raise UsageError(f"--dump-ir {options.dump_ir}: is a file; give the name of a folder")


def _compile(model: Path, options: CompileOptions) -> CompileResult:
    from qcompile.output import write_files
    from qcompile.pipeline import compile_model

    with ProgressBars(shown=options.verbosity >= 0) as bars, warnings.catch_warnings():
        # Of numpy; what matters of it is an error or a number in the report.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return compile_model(model, options, progress=bars)
        except QCompileError as error:
            if options.dump_ir is not None and error.dumps:
                write_files(options.dump_ir, error.dumps)
            raise


def _write(folder: Path, result: CompileResult, model: Path) -> None:
    from qcompile.output import write_file, write_files

    result.write(folder)
    if result.options.dump_ir is not None:
        write_files(result.options.dump_ir, result.dumps)
    if result.options.report is not None:
        write_file(result.options.report, result.report.to_json())
    logger.info("%s: wrote %s", model.name, folder)


def _check_gates(result: CompileResult) -> None:
    """
    Raises:
        VerificationError: what was written and the simulator differ.
        GateError: Dice is too low, or too much lower than that of the float network.
    """
    if result.verified is False:
        raise VerificationError("what was written and the simulator differ; see the report")
    options, totals = result.options, result.report.totals
    measured, difference = totals.dice_quantized, totals.dice_difference
    if options.min_dice is not None and (measured is None or measured < options.min_dice):
        raise GateError(
            f"Dice {measured} of the compiled network is below --min-dice {options.min_dice}; "
            f"use more bits, or more or better --calib images"
        )
    if options.max_dice_drop is not None and (
        difference is None or -difference > options.max_dice_drop
    ):
        drop = None if difference is None else round(-difference, 6)
        raise GateError(
            f"the compiled network loses {drop} Dice, more than --max-dice-drop "
            f"{options.max_dice_drop}; use more bits, or more or better --calib images"
        )
