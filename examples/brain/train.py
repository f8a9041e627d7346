"""Trains the example network: a small U-Net for grey and white matter, and exports it to ONNX.

    pip install -c constraints.txt '.[train]'
    python examples/brain/train.py

Reads `slices.npz`, writes `brain_unet.onnx` beside it and prints the Dice on the validation slices.
One seed, one CPU thread: about five minutes. The last weights are kept, so nothing is chosen on the
validation slices.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = ("background", "grey matter", "white matter")
FOLDER = Path(__file__).parent


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two times 3x3 convolution, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class BrainUNet(nn.Module):
    """[N, 1, H, W] with values 0..1 to logits [N, 3, H, W]; H and W are multiples of 8."""

    def __init__(self, base: int = 8, depth: int = 3) -> None:
        super().__init__()
        widths = [base << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            double_conv(inputs, outputs)
            for inputs, outputs in zip([1, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = double_conv(widths[-2], widths[-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(double_conv(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


def augment(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random mirror, rotation, scale, shift, brightness, contrast and noise.

    Args:
        x: images [N, 1, H, W].
        y: labels [N, H, W].
        random: the source of all randomness.
    """
    count = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    angle, scale = uniform(-0.25, 0.25), uniform(0.85, 1.15)
    mirror = torch.sign(torch.rand(count, generator=random) - 0.5)
    aspect = x.shape[2] / x.shape[3]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack(
        [
            torch.stack([cos * mirror, -sin * aspect, uniform(-0.1, 0.1)], 1),
            torch.stack([sin / aspect * mirror, cos, uniform(-0.1, 0.1)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(rows, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, align_corners=False)
    labels = functional.grid_sample(y[:, None].float(), grid, mode="nearest", align_corners=False)
    gain, gamma = uniform(0.8, 1.2), uniform(0.8, 1.25)
    x = (x * gain[:, None, None, None]).clamp(0, 1) ** gamma[:, None, None, None]
    x = x + 0.02 * torch.randn(x.shape, generator=random)
    return x.clamp(0, 1), labels[:, 0].long()


def dice(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.uint8], index: int) -> float:
    """Mean over images [N, H, W] of the Dice of one class; 1 where neither shows it."""
    scores = []
    for a, b in zip(predicted == index, labels == index, strict=True):
        total = int(a.sum()) + int(b.sum())
        scores.append(2 * int((a & b).sum()) / total if total else 1.0)
    return float(np.mean(scores))


def train(model: BrainUNet, x: Tensor, y: Tensor, steps: int, batch: int, seed: int) -> None:
    """Minimises the cross entropy of augmented slices with AdamW and a one-cycle learning rate."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    model.train()
    for step in range(1, steps + 1):
        chosen = torch.randperm(len(x), generator=random)[:batch]
        images, labels = augment(x[chosen], y[chosen], random)
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains and exports the brain tissue network.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    with np.load(FOLDER / "slices.npz") as data:
        x = torch.from_numpy(data["train_x"])[:, None].float() / 255
        y = torch.from_numpy(data["train_y"]).long()
        validation_x = torch.from_numpy(data["val_x"])[:, None].float() / 255
        validation_y = data["val_y"]
    model = BrainUNet()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    begin = time.monotonic()
    train(model, x, y, options.steps, options.batch, options.seed)
    print(f"{parameters} parameters, trained in {time.monotonic() - begin:.0f} s")
    model.eval()
    with torch.no_grad():
        predicted = model(validation_x).argmax(1).numpy()
    for index, name in enumerate(CLASSES):
        print(f"Dice {name}: {dice(predicted, validation_y, index):.4f}")
    torch.onnx.export(
        model,
        (torch.zeros(1, *x.shape[1:]),),
        str(FOLDER / "brain_unet.onnx"),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        do_constant_folding=True,
        dynamo=False,
    )


if __name__ == "__main__":
    main()
