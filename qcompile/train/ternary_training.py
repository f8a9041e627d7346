"""Training of a ternary U-Net, soft epochs first, then hard ones, and of its float counterpart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qcompile.errors import UsageError
from qcompile.train.augment import Augment
from qcompile.train.checkpoint import load_checkpoint, save_checkpoint
from qcompile.train.curves import Epoch
from qcompile.train.float_network import train_epoch
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.train.ternary_layers import BetaSchedule, Continuation
from qcompile.train.ternary_unet import TernaryUNet

Progress = Callable[[int, float], None]
"""progress(epoch, loss)"""


@dataclass(frozen=True, slots=True)
class TernarySchedule:
    """The steepness of activations over a run.

    Attributes:
        soft: of the first epochs.
        hard_gradient: steepness of the gradient in the epochs after them, whose values are hard. A
            steep gradient reaches few values; this one is that of a soft tanh again.
    """

    soft: BetaSchedule
    hard_gradient: float = 2.0

    @staticmethod
    def over(
        epochs: int,
        beta: tuple[float, float] = (2.0, 4.0),
        hard_share: float = 0.85,
        hard_gradient: float = 2.0,
    ) -> TernarySchedule:
        """Steeper and steeper, then hard.

        Args:
            epochs: of the run.
            beta: steepness in the first epoch, and in the last soft one.
            hard_share: of the epochs; at least one is soft and one is hard.
            hard_gradient: see above.

        Raises:
            UsageError: too few epochs, or a number that means nothing.
        """
        if epochs < 2:
            raise UsageError(f"--epochs: {epochs} is too small; a ternary network needs 2 or more")
        if not (0 < hard_share < 1 and 0 < hard_gradient < 1000):
            raise UsageError(
                f"hard share {hard_share:g} with gradient {hard_gradient:g}: give a share between "
                f"0 and 1 and a positive steepness"
            )
        soft = min(max(1, epochs - math.ceil(hard_share * epochs)), epochs - 1)
        return TernarySchedule(BetaSchedule(*beta, epochs=soft), hard_gradient)

    def apply(self, continuation: Continuation, epoch: int) -> None:
        """Before an epoch, counted from 1."""
        continuation.is_hard = epoch > self.soft.epochs
        continuation.beta = self.hard_gradient if continuation.is_hard else self.soft.at(epoch)


class _InBfloat16(nn.Module):
    """A network whose convolutions round to bfloat16; its parameters and its loss do not.

    Its tensors have their channels last, with which these convolutions are faster.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # torch's stubs do not know that modules take a memory format alone.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            result: Tensor = self.network(x)
        return result.float()


def train_unet(
    network: TernaryUNet,
    samples: Samples,
    options: TrainOptions,
    schedule: TernarySchedule,
    checkpoint: Path,
    weights: tuple[float, ...] | None = None,
    bfloat16: bool = False,
    progress: Progress | None = None,
    teacher: TernaryUNet | None = None,
) -> list[Epoch]:
    """Trains to the last epoch, which is kept: nothing is chosen by validation images.

    Args:
        network: ternary, or float: then `schedule` means nothing, and all else is alike.
        samples: the training images.
        options: of the run; epochs, batch, rate, augmentation, loss, resume and seed count.
        schedule: of the activations.
        checkpoint: where the state after every epoch goes; its folder exists.
        weights: of the classes in the cross-entropy.
        bfloat16: convolutions in this type, twice as fast where the processor has it. -1, 0 and 1
            are exact in it.
        progress: told after every epoch.
        teacher: a trained float network; `options.loss.distillation` is the weight of its opinion.

    Returns:
        What happened, earlier epochs of a run that went on included.

    Raises:
        UsageError: the loss is no number any more, or the checkpoint is of another run.
        DataError: the checkpoint is damaged.
    """
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate)
    generator = torch.Generator().manual_seed(options.seed)
    loss = dataclasses.replace(options.loss, weights=weights)
    settings = {**_settings(network, samples, options, schedule), "bfloat16": bfloat16}
    trained = _InBfloat16(network) if bfloat16 else network
    if teacher is not None:
        teacher.eval()
    taught = _InBfloat16(teacher) if bfloat16 and teacher is not None else teacher
    epochs: list[Epoch] = []
    if options.resume and checkpoint.exists():
        content = load_checkpoint(checkpoint, settings)
        network.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
        generator.set_state(content["generator"])
        epochs = [Epoch(**item) for item in content["epochs"]]
    for number in range(len(epochs) + 1, options.epochs + 1):
        if network.continuation is not None:
            schedule.apply(network.continuation, number)
        mean = train_epoch(trained, samples, options, loss, optimizer, generator, number, taught)
        epochs.append(Epoch(number, mean, None))
        save_checkpoint(
            checkpoint,
            {
                "settings": settings,
                "module": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "epochs": [dataclasses.asdict(item) for item in epochs],
            },
        )
        if progress is not None:
            progress(number, mean)
    if network.continuation is not None:
        schedule.apply(network.continuation, options.epochs)
    settle_norms(network, samples, options)
    network.eval()
    return epochs


@torch.no_grad()
def settle_norms(network: nn.Module, samples: Samples, options: TrainOptions) -> None:
    """Statistics of batch norms over one epoch without augmentation, all batches alike: those of
    training follow the last few batches, and ternary weights move by whole steps between them."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean
    network.train()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(options.seed)
    for batch in samples.batches(options.batch, Augment(frozenset()), generator):
        (image,) = batch.inputs.values()
        network(image.to(device))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _settings(
    network: TernaryUNet, samples: Samples, options: TrainOptions, schedule: TernarySchedule
) -> Mapping[str, Any]:
    """What a run that goes on must have in common with the one before."""
    shape = dataclasses.asdict(network.shape)
    is_ternary = network.continuation is not None
    return {
        "training images": len(samples.images),
        "size": list(next(iter(samples.shapes.values()))),
        "ternary": is_ternary,
        **{f"U-Net {name}": value for name, value in shape.items()},
        **(dataclasses.asdict(schedule) if is_ternary else {}),
        **options.settings(),
    }
