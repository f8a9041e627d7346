"""Self-attention instead of convolution: trains both, compiles both, compares.

    pip install -c constraints.txt '.[train]'
    python examples/self_attention/self_attention.py --data images.npz --out build/attention

Trains a U-Net of local self-attention and its convolutional twin equally long on the same data,
exports both to ONNX, compiles both to C with 8/8 and 4/6 bits and `--verify`, and prints what the
reports say: Dice of the integers, error of the logits, sizes, multiplications, and the time of one
image on one core. The file has `train_x`, `val_x` (uint8 [N, H, W] or [N, H, W, C]) and `train_y`,
`val_y` (class indices [N, H, W]).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qcompile.data.arrays import open_arrays
from qcompile.errors import DataError, QCompileError, UsageError
from qcompile.train.attention_unet import AttentionUNet
from qcompile.train.augment import EXPOSURE, parse_augment
from qcompile.train.device import torch_device
from qcompile.train.float_network import INPUT, export_onnx, train_float
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions, class_weights
from qcompile.train.samples import Samples
from qcompile.types import Array

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "folders.py"
KINDS = ("attention", "convolution")
SETTINGS = ("8/8", "4/6")
KEYS = ("train_x", "train_y", "val_x", "val_y")
QUICK = {"base": 4, "depth": 1, "epochs": 6}
"""What `--quick` stands for, where nothing else is said."""
USUAL = {"base": 8, "depth": 3, "epochs": 40}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    first = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(description=first)
    add = parser.add_argument
    add("--data", type=Path, required=True, help=f"a .npz with {', '.join(KEYS)}")
    add("-o", "--out", type=Path, default=Path("attention-out"), help="folder of all results")
    add("--quick", action="store_true", help="a small network and few epochs: minutes")
    add("--resume", action="store_true", help="keep the trained networks of the folder")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--base", type=int, help=f"channels of the first level ({USUAL['base']})")
    add("--depth", type=int, help=f"how often the size is halved ({USUAL['depth']})")
    add("--heads", type=int, default=1, help="of every attention (1, as published)")
    add("--epochs", type=int, help=f"({USUAL['epochs']})")
    add("--batch", type=int, default=8)
    add("--lr", type=float, default=3e-3, help="highest learning rate of AdamW")
    add("--class-weights", default="", help="of the cross-entropy, such as 0.5,2.5, or balanced")
    add("--augment", default="flips,brightness", help="as in qcompile finetune")
    add("--effort", default="normal", help="of the quantisation, as in qcompile")
    add("--threads", type=int, default=1, help="of torch")
    chosen = parser.parse_args(arguments)
    for name, value in (QUICK if chosen.quick else USUAL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if chosen.base < 1 or chosen.heads < 1 or chosen.base % chosen.heads:
        raise UsageError(f"--heads: {chosen.heads} must divide the {chosen.base} of --base")
    return chosen


def read(options: argparse.Namespace) -> dict[str, Array]:
    """The four arrays."""
    file = open_arrays(options.data)
    missing = [key for key in KEYS if key not in file.keys]
    if missing:
        raise DataError(
            f"{options.data.name}: has no array '{missing[0]}'; it must have {', '.join(KEYS)}"
        )
    data = {key: file.read(key) for key in KEYS}
    height, width = data["train_x"].shape[1:3]
    step = 1 << options.depth
    if height % step or width % step:
        raise UsageError(
            f"{options.data.name}: {height}x{width} pixels are no multiple of {step}, see --depth"
        )
    return data


def write_calibration(data: dict[str, Array], options: argparse.Namespace) -> Path:
    """The training images; a third each darker, as they are and brighter, if training saw that.

    What has another brightness than these may leave the ranges of activations, which grow with its
    square in attention.
    """
    images = data["train_x"]
    if EXPOSURE in parse_augment(options.augment).kinds:
        parts = [
            np.clip(np.rint(images[first::3] * factor), 0, 255)
            for first, factor in enumerate((0.5, 1.0, 2.0))
        ]
        images = np.concatenate(parts).astype(images.dtype)
    path: Path = options.out / "calibration.npz"
    np.savez_compressed(path, x=images)
    return path


def train(kind: str, data: dict[str, Array], options: argparse.Namespace) -> dict[str, Any]:
    """One network, to its last epoch, as an ONNX file; what is known of the training."""
    model = options.out / f"{kind}.onnx"
    if options.resume and model.is_file():
        return {"resumed": True}
    images, labels = data["train_x"], data["train_y"]
    samples = Samples.from_arrays(images, labels, INPUT)
    classes = 1 + int(max(labels.max(), data["val_y"].max()))
    channels = images.shape[3] if images.ndim == 4 else 1
    choice = TrainOptions(
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=options.lr,
        augment=parse_augment(options.augment),
        loss=Loss(),
        class_weights=options.class_weights,
        device=options.device,
        seed=options.seed,
    )
    network = AttentionUNet(
        channels,
        classes if classes > 2 else 1,
        options.base,
        options.depth,
        options.heads,
        kind == "attention",
        options.seed,
    ).to(torch_device(options.device))
    begin = time.monotonic()
    epochs = train_float(
        network,
        samples,
        None,
        choice,
        lambda epoch, loss, _: print(
            f"{kind}: epoch {epoch} of {options.epochs}, loss {loss:.4f}, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        ),
        class_weights(options.class_weights, samples.class_counts(max(2, classes))),
    )
    model.write_bytes(export_onnx(network.cpu(), (1, channels, *images.shape[1:3])))
    seconds = time.monotonic() - begin
    return {"loss": epochs[-1].loss, "epochs": len(epochs), "seconds": seconds}


def compile_network(
    kind: str, setting: str, calibration: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Runs `qcompile` on a trained network; its report."""
    weights, activations = setting.split("/")
    model, folder = options.out / f"{kind}.onnx", options.out / f"{kind}-w{weights}a{activations}"
    command = [sys.executable, "-m", "qcompile.cli", str(model), "-o", str(folder), "--verify"]
    command += ["--calib", f"{calibration}:x", "--data", str(options.data), "-q"]
    command += ["--wbits", weights, "--abits", activations, "--effort", options.effort]
    print(" ".join(["qcompile", *command[3:]]), flush=True)
    subprocess.run(command, check=True)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report | {"folder": str(folder)}


def measure(folders: Sequence[str], out: Path) -> list[float]:
    """Median seconds of one image on one core, of programs that take turns."""
    path = out / "times.json"
    command = [sys.executable, str(BENCHMARK), *folders, "--json", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = {item["folder"]: item["median"] for item in json.loads(path.read_text())}
    return [float(found[folder]) for folder in folders]


def logits_sqnr(report: dict[str, Any]) -> float | None:
    """Error of the last convolution's outputs, which the logits are, in decibels."""
    rows = [row for row in report["layers"] if row["operator"] == "Conv"]
    found = rows[-1].get("sqnr_db")
    return None if found is None else float(found)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    head = ["", "parameters", "multiply-accumulates", "bits", "Dice float", "Dice", "points"]
    head += ["SQNR of the logits, dB", "bytes emitted", "arena", "ms"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in results["rows"]:
        cells = [
            row["kind"],
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            row["setting"],
            f"{row['dice_float']:.4f}",
            f"{row['dice']:.4f}",
            f"{100 * (row['dice'] - row['dice_float']):+.2f}",
            "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
            f"{row['bytes']:,}",
            f"{row['arena']:,}",
            f"{row['milliseconds']:.3g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs all of it; the results."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    data = read(options)
    options.out.mkdir(parents=True, exist_ok=True)
    calibration = write_calibration(data, options)
    rows: list[dict[str, Any]] = []
    training = {}
    for kind in KINDS:
        training[kind] = train(kind, data, options)
        for setting in SETTINGS:
            report = compile_network(kind, setting, calibration, options)
            totals = report["totals"]
            rows.append(
                {
                    "kind": kind,
                    "setting": setting,
                    "parameters": totals["parameters"],
                    "macs": totals["macs"],
                    "dice_float": totals["dice_float"],
                    "dice": totals["dice_quantized"],
                    "sqnr_db": logits_sqnr(report),
                    "bytes": totals["weight_bytes_emitted"],
                    "arena": totals["arena_bytes"],
                    "verified": report["verified"],
                    "folder": report["folder"],
                }
            )
    seconds = measure([row["folder"] for row in rows], options.out)
    for row, found in zip(rows, seconds, strict=True):
        row["milliseconds"] = 1e3 * found
    results = {
        "rows": rows,
        "training": training,
        "options": {name: str(value) for name, value in vars(options).items()},
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "results.md").write_text(table(results))
    print(table(results))
    return results


if __name__ == "__main__":
    try:
        main()
    except QCompileError as error:
        print(f"self_attention: error: {error}", file=sys.stderr)
        sys.exit(2)
