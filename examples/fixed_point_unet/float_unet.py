"""The published network, and its training in floats."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.errors import DataError
from qcompile.output import write_files
from qcompile.train.augment import Augment
from qcompile.train.float_network import export_onnx, train_float
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions, class_weights
from qcompile.train.samples import Samples

LEVELS = 3
"""How often the network halves its images."""


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
