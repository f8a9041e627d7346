"""A small U-Net in plain torch, its training in floats, and its way into ONNX.

What examples train before anything is quantised. Batch norms stay nodes of their own in the ONNX
model: quantizers that take weights as trained (INQ, DoReFa, ternary weight networks) must not see
them multiplied into the weights.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.errors import UsageError
from qcompile.train.curves import Epoch
from qcompile.train.local_attention import LocalAttention2d
from qcompile.train.loop import rate_at
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.types import Shape

INPUT, OUTPUT = "image", "logits"
"""Names in the exported model."""
OPSET = 17
WEIGHT_DECAY = 1e-4

Progress = Callable[[int, float, float | None], None]
"""progress(epoch, loss, dice)"""


class UNet(nn.Module):
    """[N, channels, H, W] to logits [N, classes, H, W]; H and W are multiples of 2**depth.

    Every level has two times 3x3 convolution, batch norm, ReLU; 2x2 maximum on the way down, 2x2
    transposed convolution and concatenation on the way up (Ronneberger 2015).
    """

    def __init__(
        self, channels: int, classes: int, base: int = 8, depth: int = 4, seed: int = 0
    ) -> None:
        """
        Args:
            channels: of images.
            classes: logits for each pixel; 1: foreground or not.
            base: channels of the first level; each level has twice those of the one before.
            depth: how often the size is halved.
            seed: of the weights at the start. torch's own generator is left alone.
        """
        super().__init__()
        widths = [base << level for level in range(depth + 1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                _block(inputs, outputs)
                for inputs, outputs in zip([channels, *widths[:-2]], widths[:-1], strict=True)
            )
            self.bottom = _block(widths[-2], widths[-1])
            rising = widths[-2::-1]
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in rising)
            self.merge = nn.ModuleList(_block(2 * width, width) for width in rising)
            self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        result: Tensor = self.head(x)
        return result


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def train_float(
    module: nn.Module,
    samples: Samples,
    validation: Samples | None,
    options: TrainOptions,
    progress: Progress | None = None,
    weights: tuple[float, ...] | None = None,
) -> list[Epoch]:
    """Trains a module with one input in floats; it ends with the parameters of its best epoch.

    Args:
        module: from images [N, C, H, W] to logits [N, classes or 1, H, W]; stays on its device.
        samples: the training images, all of the size that the module takes.
        validation: Dice on these images chooses the epoch; None: the last one is taken.
        options: of the run; epochs, batch, rate, patience, augmentation, loss and seed count.
        progress: told after every epoch.
        weights: of the classes in the cross-entropy.

    Returns:
        What happened, with Dice where validation images are given.

    Raises:
        UsageError: the loss is no number any more.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), options.learning_rate, weight_decay=WEIGHT_DECAY
    )
    generator = torch.Generator().manual_seed(options.seed)
    loss = Loss(weights, options.loss.dice, options.loss.boundary)
    epochs: list[Epoch] = []
    best, best_state = 0, _copied(module)
    for number in range(1, options.epochs + 1):
        mean = train_epoch(module, samples, options, loss, optimizer, generator, number)
        last = number == options.epochs
        judged = validation is not None and (last or number % options.validate_every == 0)
        dice = mean_dice(module, validation, options.batch) if validation and judged else None
        epochs.append(Epoch(number, mean, dice))
        highest = max([item.dice for item in epochs[:-1] if item.dice is not None], default=-1.0)
        if validation is None or (dice is not None and dice > highest):
            best, best_state = number, _copied(module)
        if progress is not None:
            progress(number, mean, dice)
        if validation is not None and 0 < options.patience <= number - best:
            break
    module.load_state_dict(best_state)
    module.eval()
    return epochs


def train_epoch(
    module: nn.Module,
    samples: Samples,
    options: TrainOptions,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    number: int,
    teacher: nn.Module | None = None,
) -> float:
    """One pass over the images.

    Args:
        module: from images [N, C, H, W] to logits [N, classes or 1, H, W].
        samples: the training images.
        options: of the run; epochs, batch, rate and augmentation count.
        loss: what is made small.
        optimizer: of the module's parameters.
        generator: of everything that is drawn.
        number: of the epoch, from 1.
        teacher: whose logits the loss compares with, if its `distillation` says so.

    Returns:
        The mean loss.

    Raises:
        UsageError: it is no number any more.
    """
    module.train()
    device = next(module.parameters()).device
    steps = samples.steps(options.batch)
    total = 0.0
    for step, batch in enumerate(samples.batches(options.batch, options.augment, generator)):
        rate = rate_at((number - 1) * steps + step, steps, options.epochs)
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate
        (image,) = batch.inputs.values()
        image = image.to(device)
        with torch.no_grad():
            wanted = None if teacher is None else teacher(image)
        found = loss(module(image), batch.labels.to(device), wanted)
        optimizer.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(found.detach())
    if not math.isfinite(total):
        raise UsageError(
            f"the loss of epoch {number} is {total}; use a smaller rate than "
            f"{options.learning_rate:g}"
        )
    return total / steps


def mean_dice(module: nn.Module, samples: Samples, batch: int = 8) -> float:
    """Dice of each foreground class in each image, averaged; 1 where neither shows the class.

    Args:
        module: as in `train_float`; left in evaluation mode.
        samples: images of the size that the module takes.
        batch: images at a time.
    """
    module.eval()
    device = next(module.parameters()).device
    dices = []
    for part in samples.in_order(batch):
        (image,) = part.inputs.values()
        with torch.no_grad():
            logits = module(image.to(device)).cpu()
        is_single = logits.shape[1] == 1
        found = (logits[:, 0] > 0).to(torch.int64) if is_single else logits.argmax(dim=1)
        wanted = part.labels.cpu()
        for index in range(1, max(2, logits.shape[1])):
            dices += [_dice(*maps) for maps in zip(found == index, wanted == index, strict=True)]
    return sum(dices) / len(dices)


def export_onnx(module: nn.Module, shape: Shape) -> bytes:
    """The module as an ONNX model with the input `image` and the output `logits`.

    Args:
        module: in training or evaluation mode; it is exported, and left, in evaluation mode.
        shape: of the input, such as (1, 3, 96, 144).
    """
    device = next(module.parameters()).device
    has_attention = any(isinstance(layer, LocalAttention2d) for layer in module.modules())
    module.eval()
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder, warnings.catch_warnings():
        # The exporter without further dependencies warns that there is a newer one.
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            (torch.zeros(shape, device=device),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            custom_opsets={"qcompile": 1} if has_attention else None,
            # Else the exporter multiplies batch norms into convolutions.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
        return path.read_bytes()


def _dice(found: Tensor, wanted: Tensor) -> float:
    total = int(found.sum()) + int(wanted.sum())
    return 2 * int((found & wanted).sum()) / total if total else 1.0


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: item.detach().clone() for name, item in module.state_dict().items()}
