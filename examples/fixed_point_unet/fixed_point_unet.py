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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.errors import DataError, QCompileError, UsageError
from qcompile.importer import import_model
from qcompile.ops import Conv, MaxPool
from qcompile.output import write_file, write_files
from qcompile.train.augment import Augment
from qcompile.train.float_network import export_onnx, train_float
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions, class_weights
from qcompile.train.samples import Samples

LEVELS = 3
"""How often the published network halves its images."""
KEPT_BITS = 8
"""Of the first block and the last convolution, at least."""
QUICK_STEPS = 4


@dataclass(frozen=True)
class Setting:
    """One row of the sweep: bits of weights and activations, and how they are trained."""

    wbits: int
    abits: int
    epochs: int
    rate: float

    @property
    def name(self) -> str:
        return f"w{self.wbits}a{self.abits}"

    @property
    def kept_bits(self) -> int:
        """Of the first block's weights and the last convolution's."""
        return max(KEPT_BITS, self.wbits)


SWEEP = (
    Setting(16, 16, 2, 1e-4),
    Setting(8, 8, 2, 1e-4),
    Setting(4, 6, 6, 3e-4),
    Setting(2, 4, 20, 5e-4),
)


class FixedPointUNet(nn.Module):
    """[N, channels, H, W] with values 0..1 to logits [N, classes or 1, H, W].

    The network of AskariHemmat et al. 2019 but for its width: three levels of two times (3x3
    convolution with bias, ReLU, batch norm), a bottom as wide as the third level, upsampling by 2,
    concatenation, and a 3x3 convolution at the end. H and W are multiples of 8.
    """

    def __init__(
        self, channels: int, classes: int, base: int, upsampling: str = "bilinear", seed: int = 0
    ) -> None:
        super().__init__()
        one, two, four = base, 2 * base, 4 * base
        self.upsampling = upsampling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList([_block(channels, one), _block(one, two), _block(two, four)])
            self.bottom = _block(four, four)
            self.up = nn.ModuleList(
                [_block(four + four, four), _block(four + two, two), _block(two + one, one)]
            )
            self.head = nn.Conv2d(one, 1 if classes == 2 else classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            corners = False if self.upsampling == "bilinear" else None
            x = functional.interpolate(
                x, scale_factor=2.0, mode=self.upsampling, align_corners=corners
            )
            x = block(torch.cat([x, skip], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers)


@dataclass(frozen=True, slots=True)
class Exposed(Augment):
    """Multiplies pixels by up to 2**stops, or divides them, before all else: scanners differ more
    in brightness than the images of one of them do."""

    stops: float = 0.0

    def __call__(
        self,
        images: dict[str, Tensor],
        labels: Tensor,
        generator: torch.Generator,
        is_pixels: bool,
    ) -> tuple[dict[str, Tensor], Tensor]:
        if self.stops:
            draws = 2 * torch.rand(len(labels), 1, 1, 1, generator=generator) - 1
            factors = torch.exp2(self.stops * draws).to(labels.device)
            images = {name: (data * factors).clamp(max=255) for name, data in images.items()}
        return Augment.__call__(self, images, labels, generator, is_pixels)


def train_samples(data: Path, tile: int | None) -> Samples:
    """The training images; larger ones than the tile are cut at random places.

    Raises:
        DataError: the file has no such arrays, or sizes that the network cannot halve three times.
    """
    try:
        with np.load(data, allow_pickle=False) as arrays:
            images, labels = arrays["train_x"], arrays["train_y"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"--data {data}: needs train_x and train_y ({error})") from None
    samples = Samples.from_arrays(images, labels)
    ((name, (_, channels, *full)),) = samples.shapes.items()
    size = [min(side, tile or side) for side in full]
    if any(side % 2**LEVELS for side in size):
        raise DataError(f"images of {size}: sides must be multiples of {2**LEVELS}; try --tile 128")
    pieces = int(np.prod([-(-side // part) for side, part in zip(full, size, strict=True)]))
    return dataclasses.replace(
        samples,
        shapes={name: (1, channels, *size)},
        pieces=(pieces,) * len(images),
    )


def float_network(arguments: argparse.Namespace, path: Path) -> None:
    """Trains the network in floats and writes it to `path`. The last epoch is taken: nothing is
    chosen on the validation images."""
    samples = train_samples(arguments.data, arguments.tile)
    ((_, shape),) = samples.shapes.items()
    classes = max(2, 1 + max(int(label.max()) for label in samples.labels))
    module = FixedPointUNet(
        shape[1], classes, arguments.base, arguments.upsampling, arguments.seed
    ).to(_device(arguments.device))
    options = TrainOptions(
        arguments.float_epochs, arguments.batch, arguments.float_rate, patience=0,
        augment=Exposed(stops=arguments.exposure), loss=Loss(), device=arguments.device,
        seed=arguments.seed,
    )  # fmt: skip
    weights = class_weights(arguments.class_weights, samples.class_counts(classes))
    parameters = sum(item.numel() for item in module.parameters())
    print(f"float: {parameters} parameters, {len(samples.images)} images", flush=True)
    train_float(
        module, samples, None, options,
        lambda epoch, loss, _: print(f"float: epoch {epoch}, loss {loss:.4f}", flush=True),
        weights,
    )  # fmt: skip
    write_files(path.parent, {path.name: export_onnx(module, shape)})


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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


def row_of(setting: Setting, folder: Path) -> dict[str, Any]:
    """What the table says of one setting."""
    report = json.loads((folder / "c" / "report.json").read_text())
    totals = report["totals"]
    # Of a tuned model the report compares with its own weights in float, not with the network
    # that the training began with.
    epochs, best = 0, 0
    whole, start, last = totals["dice_float"], totals["dice_quantized"], None
    if (folder / "tuned" / "history.json").is_file():
        history = json.loads((folder / "tuned" / "history.json").read_text())
        epochs, best = history["epochs"][-1]["epoch"], history["best_epoch"]
        whole, start = history["dice_float"], history["epochs"][0]["dice"]
        last = history["epochs"][-1]["dice"]
    weights = [layer for layer in report["layers"] if layer["weight_bits"] == setting.wbits]
    return {
        "wbits": setting.wbits,
        "abits": setting.abits,
        "epochs": epochs,
        "best_epoch": best,
        "fp32_bytes": totals["fp32_bytes"],
        "bytes_nominal": totals["weight_bytes_nominal"],
        "bytes_emitted": totals["weight_bytes_emitted"],
        "share_quantised": sum(layer["parameters"] for layer in weights) / totals["parameters"],
        "dice_float": whole,
        "dice_before_training": start,
        "dice_last_epoch": last,
        "dice": totals["dice_quantized"],
        "dice_classes": [item["quantized"]["mean"] for item in report["dice"]["classes"]],
        "verified": report["verified"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, in the shape of the publication's."""
    first = rows[0]
    size = first["fp32_bytes"]
    lines = [
        "| weights | activations | nominal bytes | ratio | emitted bytes | ratio | Dice "
        "| loss, points | before training | last epoch | epochs (best) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| float | float | {size:,} | 1.0 | {size:,} | 1.0 | {100 * first['dice_float']:.2f} | "
        f"| | | |",
    ]
    for row in rows:
        loss, before, last = (
            "" if row[name] is None else f"{100 * (row['dice_float'] - row[name]):+.2f}"
            for name in ("dice", "dice_before_training", "dice_last_epoch")
        )
        lines.append(
            f"| {row['wbits']} | {row['abits']} "
            f"| {row['bytes_nominal']:,} | {size / row['bytes_nominal']:.1f} "
            f"| {row['bytes_emitted']:,} | {size / row['bytes_emitted']:.1f} "
            f"| {100 * row['dice']:.2f} | {loss} | {before} | {last} "
            f"| {row['epochs']} ({row['best_epoch']}) |"
        )
    return "\n".join(lines) + "\n"


def settings_of(text: str, epochs: Sequence[int]) -> list[Setting]:
    """'8/8,4/6' and epochs for each of them (or one for all; 0: no training) to settings.

    Raises:
        UsageError: a setting is not of the sweep, or the numbers do not match.
    """
    known = {f"{item.wbits}/{item.abits}": item for item in SWEEP}
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UsageError(f"--settings: '{name}' is unknown; use some of {', '.join(known)}")
    if not epochs:
        return [known[name] for name in names]
    if len(epochs) not in (1, len(names)):
        raise UsageError(f"--epochs: give one number, or one for each of {', '.join(names)}")
    if min(epochs) < 0:
        raise UsageError("--epochs: use 0 (no training) or more")
    numbers = list(epochs) * (len(names) if len(epochs) == 1 else 1)
    return [
        dataclasses.replace(known[name], epochs=number)
        for name, number in zip(names, numbers, strict=True)
    ]


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
