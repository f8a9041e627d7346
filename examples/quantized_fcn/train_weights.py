"""Weights only: INQ with 7 and 5 bits, DoReFa and ternary weight networks against floats.

    python examples/quantized_fcn/train_weights.py --data glas.npz --out weights

Trains a U-Net in floats (or takes one with --model), fine-tunes it once for each format of its
weights with `qcompile finetune`, all for as many epochs, compiles the results to C, and prints the
table. Activations stay floats. A run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qcompile import compile_model
from qcompile.cli import run
from qcompile.config import resolve
from qcompile.train.device import torch_device
from qcompile.train.float_network import UNet, export_onnx, train_float
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.types import Array

PARTS = ("train", "val")
DEPTH = 4
BATCH = 6
FLOAT_RATE = 4e-3
"""Learning rate of the float network, which starts from chance."""


@dataclass(frozen=True)
class Method:
    """A format of weights, and how it is trained.

    Attributes:
        name: in the table, and of its folder.
        bits: of a weight, as publications count.
        flags: of `qcompile finetune`.
        rate: its learning rate.
    """

    name: str
    bits: int
    flags: tuple[str, ...]
    rate: float


INCREMENTAL = ("--quantizer", "pow2", "--portions", "50,75,87.5,100")
METHODS = (
    Method("float", 32, ("--wbits", "32"), 1e-3),
    Method("INQ-7", 7, (*INCREMENTAL, "--wbits", "7"), 1e-3),
    Method("INQ-5", 5, (*INCREMENTAL, "--wbits", "5"), 1e-3),
    Method("DoReFa-5", 5, ("--quantizer", "dorefa", "--wbits", "5"), 1e-3),
    Method("TWN", 2, ("--quantizer", "twn"), 1e-3),
)
"""`float` is trained on like the others, so that epochs are no advantage of theirs."""


@dataclass(frozen=True)
class Row:
    """What one network is worth, on the validation images.

    Attributes:
        name: see `Method`.
        dice: mean over images.
        f1: of objects, those of all images together.
        object_dice: likewise.
        hausdorff: likewise, in pixels.
        bits: of a weight, as publications count.
        stored: bits of a weight of all layers on average, as the report counts codes.
        emitted: bytes of all constants of the C program.
        ratio: bytes of the parameters as float32 divided by these.
        best: the epoch that was kept.
    """

    name: str
    dice: float
    f1: float
    object_dice: float
    hausdorff: float
    bits: int
    stored: float
    emitted: int
    ratio: float
    best: int

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.dice:.4f}",
            f"{self.f1:.4f}",
            f"{self.object_dice:.4f}",
            f"{self.hausdorff:.1f}",
            f"{32 / self.bits:.2f}x",
            f"{self.stored:.2f}",
            f"{self.emitted:,}",
            f"{self.ratio:.2f}x",
        ]


HEADER = (
    "weights",
    "Dice",
    "object F1",
    "object Dice",
    "object Hausdorff",
    "32 / bits",
    "bits stored",
    "bytes emitted",
    "ratio",
)


def halved(images: Array) -> Array:
    """Means of 2x2 pixels of [N, H, W] or [N, H, W, C], rounded half up; of masks of 0 and 1 as
    well, so that a tie is foreground."""
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    cut = images[:, :height, :width].astype(np.uint16)
    sums = sum(cut[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    return np.asarray((sums + 2) // 4, dtype=np.uint8)


def prepare(data: Path, halvings: int, count: int | None, path: Path) -> Path:
    """The data set at the size of the network, as a file that `qcompile finetune` takes.

    Args:
        data: with train_x, train_y, val_x and val_y, masks of 0 and 1.
        halvings: how often the size is halved.
        count: images of each part; None: all.
        path: to write.
    """
    names = [f"{part}_{kind}" for part in PARTS for kind in "xy"]
    if not data.is_file():
        sys.exit(f"--data {data}: no such file; give a .npz with {', '.join(names)}")
    with np.load(data, allow_pickle=False) as file:
        missing = [name for name in names if name not in file]
        if missing:
            sys.exit(f"--data {data}: has no {missing[0]}; give a .npz with {', '.join(names)}")
        arrays = {name: file[name] for name in names}
    if arrays["train_y"].max() > 1 or arrays["val_y"].max() > 1:
        sys.exit(f"--data {data}: has more classes than 0 and 1; give masks of one class")
    for name, array in arrays.items():
        for _ in range(halvings):
            array = halved(array)
        arrays[name] = array[:count]
    height, width = arrays["train_x"].shape[1:3]
    if height % 2**DEPTH or width % 2**DEPTH:
        sys.exit(f"images are {height}x{width} now; the network takes multiples of {2**DEPTH}")
    np.savez(path, **arrays)
    return path


def train_network(data: Path, path: Path, base: int, epochs: int, seed: int, device: str) -> None:
    """Trains a U-Net in floats, and writes it as ONNX."""
    with np.load(data, allow_pickle=False) as file:
        training, validation = (
            Samples.from_arrays(file[f"{part}_x"], file[f"{part}_y"]) for part in PARTS
        )
    shape = training.shapes["image"]
    module = UNet(shape[1], 2, base, DEPTH, seed).to(torch_device(device))
    options = TrainOptions(
        epochs, BATCH, FLOAT_RATE, patience=0, validate_every=2, device=device, seed=seed
    )

    def progress(epoch: int, loss: float, dice: float | None) -> None:
        if dice is not None:
            print(
                f"float network, epoch {epoch} of {epochs}: loss {loss:.4f}, Dice {dice:.4f}",
                flush=True,
            )

    train_float(module, training, validation, options, progress)
    path.write_bytes(export_onnx(module, shape))


def tune(method: Method, model: Path, data: Path, folder: Path, args: argparse.Namespace) -> None:
    """Fine-tunes the float network with the format of a method."""
    arguments = ["finetune", str(model), "--data", str(data), "--abits", "32", *method.flags]
    arguments += ["--epochs", str(args.tune_epochs), "--patience", "0", "--batch", str(BATCH)]
    arguments += ["--lr", f"{method.rate:g}", "--validate-every", "2", "--seed", str(args.seed)]
    arguments += ["--device", args.device, "--workers", "1", "--resume", "-q", "-o", str(folder)]
    code = run(arguments)
    if code:
        sys.exit(code)


def judge(method: Method, folder: Path, data: Path) -> Row:
    """Compiles the network of a method to C, and judges it."""
    result = compile_model(
        folder / "model.onnx",
        resolve(
            {
                "config": folder / "plan.toml",
                "data": str(data),
                "target": "c",
                "object_metrics": True,
                "workers": 1,
            }
        ),
    )
    report = result.report
    totals, found = report.totals, report.evaluation
    assert found is not None
    assert totals.weight_bytes_emitted is not None
    (objects,) = [score for score in found.quantized_objects if score.label == 1]
    codes = [
        (row.weight_bits, row.parameters) for row in report.layers if row.weight_bits is not None
    ]
    history = json.loads((folder / "history.json").read_text())
    return Row(
        method.name,
        found.dice_quantized,
        objects.pooled_f1,
        objects.pooled_dice,
        objects.pooled_hausdorff,
        method.bits,
        sum(bits * count for bits, count in codes) / sum(count for _, count in codes),
        totals.weight_bytes_emitted,
        totals.fp32_bytes / totals.weight_bytes_emitted,
        history["best_epoch"],
    )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [list(HEADER), ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--out", type=Path, default=Path("weights"), metavar="FOLDER")
    parser.add_argument("--model", type=Path, metavar="MODEL.onnx", help="a trained float network")
    parser.add_argument("--halvings", type=int, default=1, help="of the images  [1]")
    parser.add_argument("--base", type=int, default=8, help="channels of the first level  [8]")
    parser.add_argument("--epochs", type=int, default=60, help="of the float network  [60]")
    parser.add_argument("--tune-epochs", type=int, default=16, help="of every method  [16]")
    names = [method.name for method in METHODS]
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="  [all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument(
        "--quick", action="store_true", help="a few images and epochs, small network"
    )
    args = parser.parse_args()
    count = None
    if args.quick:
        args.base, args.epochs, args.tune_epochs, count = 4, 60, 8, 12
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = prepare(args.data, args.halvings, count, args.out / "data.npz")
    model = args.out / "float.onnx"
    if args.model is not None:
        shutil.copyfile(args.model, model)
    elif not model.exists():
        train_network(data, model, args.base, args.epochs, args.seed, args.device)
    rows = []
    for method in (item for item in METHODS if item.name in args.methods):
        folder = args.out / method.name
        tune(method, model, data, folder, args)
        rows.append(judge(method, folder, data))
        print(f"{method.name}: Dice {rows[-1].dice:.4f}", flush=True)
    (args.out / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
