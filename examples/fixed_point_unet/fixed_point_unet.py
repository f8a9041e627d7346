"""A fixed-point U-Net, end to end: float training, the W/A sweep by training, C, and the table.

    pip install -c constraints.txt '.[train]'
    python examples/fixed_point_unet/fixed_point_unet.py --data gm.npz --out gm
    python examples/fixed_point_unet/fixed_point_unet.py --data em.npz --model em.onnx --out em

FILE.npz holds train_x, train_y, val_x and val_y: uint8 images [N, H, W] or [N, H, W, 3], masks with
class indices [N, H, W]. Without --model a network is trained in floats first, batch norms live. A
run that was interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from float_unet import float_network
from sweep_rows import SWEEP, Setting, row_of, settings_of, table

from qcompile.errors import QCompileError, UsageError
from qcompile.importer import import_model
from qcompile.ops import Conv, MaxPool
from qcompile.output import write_file, write_files

QUICK_STEPS = 4


def formats_file(model: Path, setting: Setting) -> str:
    """The TOML that gives the convolutions before the first pool the bits that they keep."""
    names = []
    for op in import_model(model, {}).ops:
        if isinstance(op, MaxPool):
            break
        if isinstance(op, Conv):
            names.append(op.name)
    return "".join(
        f"[[layer]]\nname = {json.dumps(name)}\nwbits = {setting.kept_bits}\n\n" for name in names
    )


def qcompile(arguments: Sequence[object]) -> None:
    """Runs the command line, and shows what it runs."""
    texts = [str(item) for item in arguments]
    print("$ qcompile", shlex.join(texts), flush=True)
    done = subprocess.run([sys.executable, "-m", "qcompile.cli", *texts], check=False)
    if done.returncode:
        raise QCompileError(f"qcompile {texts[0]} ended with exit code {done.returncode}")


def format_flags(arguments: argparse.Namespace, model: Path, setting: Setting) -> list[object]:
    """The setting, as flags; writes the formats of single layers."""
    formats = arguments.out / setting.name / "formats.toml"
    write_file(formats, formats_file(model, setting))
    return [
        "--data", arguments.data, "--config", formats, "--quantizer", "fixed",
        "--wbits", setting.wbits, "--abits", setting.abits,
        "--first-last-bits", setting.kept_bits, "--effort", arguments.effort,
        "--seed", arguments.seed, "--workers", arguments.workers, "-q",
    ]  # fmt: skip


def finetune(arguments: argparse.Namespace, model: Path, setting: Setting, folder: Path) -> None:
    """Trains the network in the setting's formats; goes on where a run was interrupted."""
    flags: list[object] = [
        "finetune", model, *format_flags(arguments, model, setting),
        "--epochs", setting.epochs, "--epoch-steps", arguments.epoch_steps,
        "--patience", 0, "--batch", arguments.batch, "--lr", setting.rate,
        "--distill", arguments.distill, "--device", arguments.device, "--resume", "-o", folder,
    ]  # fmt: skip
    if arguments.class_weights:
        flags += ["--class-weights", arguments.class_weights]
    qcompile(flags)


def compile_c(arguments: argparse.Namespace, model: Path, setting: Setting, folder: Path) -> None:
    """Emits the C program, runs it against the simulator, and measures Dice. Without training the
    float network is quantised on training images."""
    tuned = folder.parent / "tuned"
    if setting.epochs:
        flags: list[object] = [
            tuned / "model.onnx", "--config", tuned / "plan.toml", "--data", arguments.data,
            "--workers", arguments.workers, "-q",
        ]  # fmt: skip
    else:
        flags = [model, *format_flags(arguments, model, setting)]
        flags += ["--calib", f"{arguments.data}:train_x"]
    qcompile([*flags, "--output-kind", "classes", "--verify", "-o", folder])


def sweep(arguments: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    """One row for each setting that the folder has. Those that are done are not repeated."""
    for setting in arguments.sweep:
        folder = arguments.out / setting.name
        same_as_before(folder / "setting.json", dataclasses.asdict(setting))
        if (folder / "c" / "report.json").is_file():
            continue
        if setting.epochs:
            finetune(arguments, model, setting, folder / "tuned")
        compile_c(arguments, model, setting, folder / "c")
    rows = [
        row_of(setting, arguments.out / setting.name)
        for setting in SWEEP
        if (arguments.out / setting.name / "c" / "report.json").is_file()
    ]
    write_files(arguments.out, {"results.json": json.dumps(rows, indent=2) + "\n"})
    return rows


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides the results of all settings, as plain values."""
    others = {"out", "device", "workers", "threads", "settings", "epochs", "sweep", "data", "model"}
    found = {name: value for name, value in vars(arguments).items() if name not in others}
    for name in ("data", "model"):
        path = getattr(arguments, name)
        found[name] = None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def same_as_before(path: Path, options: dict[str, Any]) -> None:
    """Writes the options of a folder, or compares them with what lies there.

    Raises:
        UsageError: they differ.
    """
    if path.is_file():
        before = json.loads(path.read_text())
        for name in sorted({*before, *options}):
            if before.get(name) != options.get(name):
                raise UsageError(
                    f"{path.parent} has results with another {name} ({before.get(name)}, now "
                    f"{options.get(name)}); choose another --out"
                )
    write_file(path, json.dumps(options, indent=2) + "\n")


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FILE.npz",
        help="train_x, train_y, val_x, val_y",
    )
    add("--model", type=Path, metavar="FILE.onnx", help="a float network, in place of training one")
    add("--out", type=Path, required=True, metavar="FOLDER")
    add("--settings", default="16/16,8/8,4/6,2/4", help="weights/activations, as many as wanted")
    add(
        "--epochs", type=int, nargs="+", default=[], help="of each setting, or one for all; 0: none"
    )
    add("--epoch-steps", type=int, default=0, help="steps in an epoch at most")
    add("--batch", type=int, default=8)
    add("--distill", type=float, default=4.0, help="weight of the float network's opinion")
    add("--class-weights", default="", help="X,X... or balanced")
    add("--effort", default="normal", help="of quantisation before training")
    add("--base", type=int, default=16, help="channels of the first level")
    add("--upsampling", choices=("bilinear", "nearest"), default="bilinear")
    add("--tile", type=int, help="side of the network's input, where images are larger")
    add("--float-epochs", type=int, default=60)
    add("--float-rate", type=float, default=3e-3)
    add("--exposure", type=float, default=1.0, help="float training: pixels times 2**-X to 2**X")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--workers", type=int, default=0, help="processes of the simulator; 0: all cores")
    add("--threads", type=int, help="of torch")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a narrow network and few steps: minutes")
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.base, arguments.float_epochs, arguments.batch = min(arguments.base, 4), 30, 4
        arguments.epochs = arguments.epochs or [1]
        arguments.epoch_steps = arguments.epoch_steps or QUICK_STEPS
        arguments.effort = "fast"
    arguments.sweep = settings_of(arguments.settings, arguments.epochs)
    for name in ("data", "model"):
        path = getattr(arguments, name)
        if path is not None and not path.is_file():
            raise UsageError(f"--{name} {path}: no such file")
    return arguments


def run(given: Sequence[str] | None = None) -> int:
    """The command."""
    try:
        arguments = parse(given)
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
            os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the commands, too
        same_as_before(arguments.out / "options.json", options_of(arguments))
        model = arguments.model
        if model is None:
            model = arguments.out / "float.onnx"
            if not model.is_file():
                float_network(arguments, model)
        text = table(sweep(arguments, model))
        write_files(arguments.out, {"table.md": text})
        print(text, end="")
    except QCompileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
