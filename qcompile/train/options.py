"""What can be chosen about a training run, beside the formats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from qcompile.errors import UsageError
from qcompile.train.augment import Augment
from qcompile.train.losses import Loss
from qcompile.train.portions import Portions

BALANCED = "balanced"
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """One run.

    Attributes:
        epochs: at most so many.
        batch: images in a step.
        learning_rate: of Adam, after the first epoch; a cosine takes it down to a hundredth.
        patience: epochs without a better Dice after which training ends; 0: never early.
        validate_every: epochs from one validation to the next.
        epoch_steps: steps in an epoch at most, each epoch on other images; 0: all images.
        augment: how images are varied.
        loss: what is made small; its class weights follow from `class_weights`.
        portions: shares of the weights that are frozen as powers of two, stage after stage; None:
            all weights are rounded in every step.
        class_weights: one for each class, 'balanced' (by the root of their share), or ''.
        learned_scales: whether scales are trained.
        device: 'auto' takes CUDA where it is.
        resume: go on from the checkpoint in the output folder, if there is one.
        seed: of everything that is drawn.
    """

    epochs: int = 40
    batch: int = 8
    learning_rate: float = 5e-4
    patience: int = 10
    validate_every: int = 1
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    class_weights: str = ""
    learned_scales: bool = True
    device: str = "auto"
    resume: bool = False
    seed: int = 0
    epoch_steps: int = 0
    portions: Portions | None = None

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--epochs", self.epochs, 1),
            ("--batch", self.batch, 1),
            ("--patience", self.patience, 0),
            ("--validate-every", self.validate_every, 1),
            ("--epoch-steps", self.epoch_steps, 0),
        ):
            if value < least:
                raise UsageError(f"{flag}: {value} is too small; use {least} or more")
        stages = 0 if self.portions is None else len(self.portions.shares)
        if self.epochs < stages:
            raise UsageError(
                f"--epochs {self.epochs}: --portions has {stages} stages, and each takes an epoch "
                f"at least; use --epochs {stages} or more"
            )
        if not 0 < self.learning_rate < 10:
            raise UsageError(f"--lr: {self.learning_rate} is no learning rate; try 0.001")
        for flag, number in (
            ("--dice-weight", self.loss.dice),
            ("--boundary", self.loss.boundary),
            ("--distill", self.loss.distillation),
        ):
            if not 0 <= number < 1e6:
                raise UsageError(f"{flag}: {number} is no weight; use 0 or more")
        if self.device not in DEVICES:
            raise UsageError(f"--device: '{self.device}' is unknown; use {', '.join(DEVICES)}")

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on, as plain values."""
        result = {
            "--batch": self.batch,
            "--lr": self.learning_rate,
            "--augment": ",".join(sorted(self.augment.kinds)),
            "--class-weights": self.class_weights,
            "--fixed-scales": not self.learned_scales,
            "--seed": self.seed,
            "--epochs": self.epochs,
            "--epoch-steps": self.epoch_steps,
            "--portions": "" if self.portions is None else self.portions.text(),
        }
        loss = dataclasses.asdict(self.loss)
        return result | {f"loss {name}": value for name, value in loss.items() if name != "weights"}


def class_weights(text: str, counts: list[int]) -> tuple[float, ...] | None:
    """The weights of the classes in the cross-entropy.

    Args:
        text: as in `TrainOptions`.
        counts: pixels of each class in the training set.

    Raises:
        UsageError: the text has another form, or another number of classes.
    """
    if not text:
        return None
    if text == BALANCED:
        roots = [(sum(counts) / max(1, count)) ** 0.5 for count in counts]
        mean = sum(roots) / len(roots)
        return tuple(root / mean for root in roots)
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if len(weights) != len(counts) or not all(0 <= weight < 1e6 for weight in weights):
        raise UsageError(
            f"--class-weights: '{text}' is not {len(counts)} numbers; give one for each class, "
            f"background first, or {BALANCED}"
        )
    return weights
