"""TernaryNet from images to integers: trains, exports, compiles and compares.

    pip install 'qcompile[train]'
    python examples/ternarynet/ternarynet.py --data images.npz --out build/ternarynet

Trains a fully ternary U-Net, and the float U-Net of the same shape equally long on the same data;
exports both to ONNX, compiles both to C with `--verify`, and prints what the reports say:
Dice of the integers on `val_x`, the share of multiplications that are ternary times ternary, bytes,
zeros, and the time of one image on one core. The file has `train_x`, `val_x` (uint8 [N, H, W] or
[N, H, W, C]) and `train_y`, `val_y` (class indices [N, H, W]). An interrupted run goes on with
`--resume`.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qcompile.data.arrays import open_arrays
from qcompile.errors import DataError, QCompileError, UsageError
from qcompile.train.augment import parse_augment
from qcompile.train.device import torch_device
from qcompile.train.float_network import INPUT, export_onnx
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions, class_weights
from qcompile.train.samples import Samples
from qcompile.train.ternary_layers import Continuation, deployed
from qcompile.train.ternary_training import TernarySchedule, train_unet
from qcompile.train.ternary_unet import TernaryUNet, UNetShape
from qcompile.types import Array

KINDS = ("float", "ternary")
KEYS = ("train_x", "train_y", "val_x", "val_y")
QUICK = {"base": 4, "depth": 2, "epochs": 4, "pieces": 1}
"""What `--quick` stands for, where nothing else is said."""
USUAL = {"base": 16, "depth": 4, "epochs": 40, "pieces": 1}
ROUNDS, IMAGES_A_ROUND = 15, 4
"""Of the timing: the programs take turns."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    first = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(description=first)
    add = parser.add_argument
    add("--data", type=Path, required=True, help=f"a .npz with {', '.join(KEYS)}")
    add("-o", "--out", type=Path, default=Path("ternarynet-out"), help="folder of all results")
    add("--quick", action="store_true", help="a small network and few epochs: minutes")
    add("--resume", action="store_true", help="go on from the checkpoints in the folder")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--base", type=int, help=f"channels of the first level ({USUAL['base']})")
    add("--depth", type=int, help=f"how often the size is halved ({USUAL['depth']})")
    add("--epochs", type=int, help=f"({USUAL['epochs']})")
    add("--pieces", type=int, help="crops of each image in an epoch (1)")
    add("--crop", type=int, default=128, help="side of the crops that are trained on")
    add("--size", type=int, help="side of the compiled network's input; default: the images'")
    add("--batch", type=int, default=8)
    add("--lr", type=float, default=5e-3, help="highest learning rate of Adam")
    add("--ternary-lr", type=float, help="that of the ternary network (as --lr)")
    add("--beta", type=float, nargs=2, default=(2.0, 4.0), help="steepness at first, at last")
    add("--hard-share", type=float, default=0.85, help="of the epochs: with hard activations")
    add("--hard-gradient", type=float, default=2.0, help="steepness of their gradient")
    add("--distill", type=float, default=0.0, help="weight of the float network's opinion (0)")
    add("--class-weights", default="", help="of the cross-entropy, such as 0.5,2.5, or balanced")
    add("--augment", default="flips,brightness", help="as in qcompile finetune")
    add("--threads", type=int, default=1, help="of torch")
    add("--bfloat16", action="store_true", help="convolutions in bfloat16 while training")
    chosen = parser.parse_args(arguments)
    for name, value in (QUICK if chosen.quick else USUAL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def read(path: Path) -> dict[str, Array]:
    """The four arrays."""
    file = open_arrays(path)
    missing = [key for key in KEYS if key not in file.keys]
    if missing:
        raise DataError(f"{path.name}: has no array '{missing[0]}'; it must have {', '.join(KEYS)}")
    return {key: file.read(key) for key in KEYS}


def train(
    kind: str,
    data: dict[str, Array],
    options: argparse.Namespace,
    shape: UNetShape,
    teacher: TernaryUNet | None = None,
) -> TernaryUNet:
    """One network, to its last epoch; `teacher` has a say if `--distill` gives it a weight."""
    images = Samples.from_arrays(data["train_x"], data["train_y"], INPUT)
    height, width = images.shapes[INPUT][2:]
    crop = (min(options.crop, height), min(options.crop, width))
    step = 1 << shape.depth
    if any(size % step for size in crop):
        raise UsageError(f"--crop: {crop[0]}x{crop[1]} is no multiple of {step}, see --depth")
    samples = dataclasses.replace(
        images,
        shapes={INPUT: (1, shape.channels, *crop)},
        pieces=(options.pieces,) * len(images.images),
    )
    choice = TrainOptions(
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=(kind == "ternary" and options.ternary_lr) or options.lr,
        augment=parse_augment(options.augment),
        loss=Loss(distillation=0.0 if teacher is None else options.distill),
        class_weights=options.class_weights,
        device=options.device,
        resume=options.resume,
        seed=options.seed,
    )
    counts = samples.class_counts(max(2, shape.outputs))
    network = TernaryUNet(shape, Continuation() if kind == "ternary" else None, options.seed)
    network.to(torch_device(options.device))
    if teacher is not None:
        teacher.to(torch_device(options.device))
    begin = time.monotonic()
    train_unet(
        network,
        samples,
        choice,
        TernarySchedule.over(
            options.epochs, tuple(options.beta), options.hard_share, options.hard_gradient
        ),
        options.out / f"{kind}.pt",
        class_weights(options.class_weights, counts),
        options.bfloat16,
        lambda epoch, loss: print(
            f"{kind}: epoch {epoch} of {options.epochs}, loss {loss:.4f}, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        ),
        teacher,
    )
    return network.cpu()


def compile_network(model: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs `qcompile` on a model; its report."""
    command = [sys.executable, "-m", "qcompile.cli", str(model), "-o", str(folder), "--verify"]
    command += ["--calib", f"{options.data}:train_x", "--data", str(options.data), "-q"]
    print(" ".join(["qcompile", *command[3:]]), flush=True)
    subprocess.run(command, check=True)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def load_c(folder: Path) -> Callable[[], float]:
    """The compiled network as a function that runs once on one core and returns seconds."""
    library = folder / "model.so"
    source = folder / "model.c"
    subprocess.run(
        ["cc", "-O3", "-std=c99", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True
    )
    found = dict(re.findall(r"#define MODEL_(\w+) (\d+)", (folder / "model.h").read_text()))
    arena_bytes = re.findall(r"#define MODEL_ARENA_BYTES (\d+)", (folder / "model.h").read_text())
    # Memory of the C library is aligned as the program wants it.
    allocate = ctypes.CDLL(None).malloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    sizes = (int(found["INPUT_ELEMENTS"]), 4 * int(found["OUTPUT_ELEMENTS"]), int(arena_bytes[-1]))
    buffers = [ctypes.c_void_p(allocate(size)) for size in sizes]
    ctypes.memset(buffers[0], 128, sizes[0])
    run = ctypes.CDLL(str(library.resolve())).model_run

    def once() -> float:
        begin = time.perf_counter()
        if run(*buffers) != 0:
            raise RuntimeError(f"{library}: refused its arguments")
        return time.perf_counter() - begin

    return once


def load_onnxruntime(model: Path, shape: Sequence[int]) -> Callable[[], float] | None:
    """The float model in onnxruntime on one core; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    choice = onnxruntime.SessionOptions()
    choice.intra_op_num_threads = choice.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), choice, ["CPUExecutionProvider"])
    feeds = {INPUT: np.full(shape, 0.5, np.float32)}

    def once() -> float:
        begin = time.perf_counter()
        session.run(None, feeds)
        return time.perf_counter() - begin

    return once


def latencies(programs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median seconds for one image; the programs take turns."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(ROUNDS + 1):
        for name, once in programs.items():
            found = [once() for _ in range(IMAGES_A_ROUND)]
            if turn:  # the first one warms up
                times[name] += found
    return {name: statistics.median(found) for name, found in times.items()}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| | float | 8 bits | ternary |", "| --- | --- | --- | --- |"]
    for name, row in results["table"].items():
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs all of it; the results."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    data = read(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    images = data["train_x"]
    classes = 1 + int(max(data["train_y"].max(), data["val_y"].max()))
    channels = images.shape[3] if images.ndim == 4 else 1
    shape = UNetShape(channels, classes if classes > 2 else 1, options.base, options.depth)
    size = (options.size,) * 2 if options.size else images.shape[1:3]
    reference = train("float", data, options, shape)
    teacher = reference if options.distill else None
    ternary = train("ternary", data, options, shape, teacher)
    networks = {"float": deployed(reference.cpu()), "ternary": deployed(ternary)}
    reports = {}
    for kind in KINDS:
        model = options.out / f"{kind}.onnx"
        model.write_bytes(export_onnx(networks[kind], (1, channels, *size)))
        reports[kind] = compile_network(model, options, options.out / kind)
    programs = {kind: load_c(options.out / kind) for kind in KINDS}
    peer = load_onnxruntime(options.out / "float.onnx", (1, channels, *size))
    if peer is not None:
        programs["onnxruntime"] = peer
    results = gathered(reports, latencies(programs))
    results["options"] = {name: str(value) for name, value in vars(options).items()}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "results.md").write_text(table(results))
    print(table(results))
    if peer is None:
        print("onnxruntime is not installed: the float model was not timed")
    return results


def gathered(reports: dict[str, dict[str, Any]], seconds: dict[str, float]) -> dict[str, Any]:
    """All numbers, and the table of them as text."""
    base, own = reports["float"]["totals"], reports["ternary"]["totals"]
    smaller = 1 - own["weight_bytes_nominal"] / own["fp32_bytes"]
    ternary = reports["ternary"]["ternary"]
    share = ternary["macs_ternary"] / ternary["macs"]
    zeros = ternary["weight_zeros"], ternary["activation_zeros"]

    def milliseconds(name: str) -> str:
        return f"{1e3 * seconds[name]:.2f}" if name in seconds else "-"

    cells = {
        "Dice": [
            f"{value:.4f}"
            for value in (base["dice_float"], base["dice_quantized"], own["dice_quantized"])
        ],
        "weights, bytes": [
            f"{value:,}"
            for value in (
                base["fp32_bytes"],
                base["weight_bytes_nominal"],
                own["weight_bytes_nominal"],
            )
        ],
        "smaller than float32": ["-", "-", f"{100 * smaller:.2f} %"],
        "constants of the C program, bytes": [
            "-",
            f"{base['weight_bytes_emitted']:,}",
            f"{own['weight_bytes_emitted']:,}",
        ],
        "multiply-accumulates": [f"{base['macs']:,}", f"{base['macs']:,}", f"{own['macs']:,}"],
        "of these ternary x ternary": ["-", "-", f"{100 * share:.2f} %"],
        "zero weights (ternary layers)": ["-", "-", f"{100 * ternary['weight_zeros']:.1f} %"],
        "zero activations (ternary, training images)": [
            "-",
            "-",
            f"{100 * ternary['activation_zeros']:.1f} %",
        ],
        "one image on one core, ms": [
            milliseconds("onnxruntime"),
            milliseconds("float"),
            milliseconds("ternary"),
        ],
    }
    return {
        "dice_float": base["dice_float"],
        "dice_ternary": own["dice_quantized"],
        "dice_ternary_real_numbers": own["dice_float"],
        "smaller": smaller,
        "ternary_macs": share,
        "zero_weights": zeros[0],
        "zero_activations": zeros[1],
        "milliseconds": {name: 1e3 * found for name, found in seconds.items()},
        "verified": all(report["verified"] for report in reports.values()),
        "table": cells,
    }


if __name__ == "__main__":
    try:
        main()
    except QCompileError as error:
        print(f"ternarynet: error: {error}", file=sys.stderr)
        sys.exit(2)
