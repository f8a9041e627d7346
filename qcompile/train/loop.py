"""The training loop: steps, validation of the integers, checkpoints, the best epoch."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from qcompile.errors import UsageError
from qcompile.train.checkpoint import load_checkpoint, save_checkpoint
from qcompile.train.curves import Epoch
from qcompile.train.graph_module import GraphModule
from qcompile.train.losses import Loss, Target
from qcompile.train.network import TrainedNetwork
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Batch, Samples
from qcompile.train.units import parameter_units, step_in_units
from qcompile.train.validation import Validation

logger = logging.getLogger("qcompile")

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total)"""

LOWEST_RATE = 0.01
"""Of the learning rate at the start: where the cosine ends."""

SCALE_RATE = 0.01
"""Learning rate of the exponents of scales, whatever that of the weights: they have no unit."""


@dataclass
class Training:
    """One run, which can go on from a checkpoint.

    Attributes:
        network: what is trained.
        teacher: the float network; None without distillation.
        target: the logits.
        samples: the training images.
        validation: judges the compiled network.
        options: of the run.
        loss: what is made small.
        checkpoint: where the state after every epoch goes.
        settings: of the run, to compare with those of a checkpoint.
        progress: told about steps and validation.
        epochs: what happened so far.
        best: the epoch with the highest Dice, of those in which all weights are what the compiled
            network has; 0, the start, until there is one.
    """

    network: TrainedNetwork
    teacher: GraphModule | None
    target: Target
    samples: Samples
    validation: Validation
    options: TrainOptions
    loss: Loss
    checkpoint: Path
    settings: Mapping[str, Any]
    progress: Progress
    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0

    def __post_init__(self) -> None:
        self.device = self.validation.device
        module = self.network.module.to(self.device)
        if self.teacher is not None:
            self.teacher.to(self.device).requires_grad_(False)
        scales = {id(item) for item in scale_parameters(module)}
        plain = [item for item in module.parameters() if id(item) not in scales]
        self.optimizer = torch.optim.Adam(
            [
                {"params": plain, "highest": self.options.learning_rate},
                {"params": list(scale_parameters(module)), "highest": SCALE_RATE},
            ],
            self.options.learning_rate,
        )
        self.units = parameter_units(module, self.network.factors)
        self.generator = torch.Generator().manual_seed(self.options.seed)
        self.best_state = _copied(module)

    def run(self) -> None:
        """Trains to the end, and puts the parameters of the best epoch into the network.

        Raises:
            UsageError: the loss is no number any more.
        """
        if self.options.resume and self.checkpoint.exists():
            self._restore()
        else:
            self._finish_epoch(0, None)
        while not self._is_over():
            number = self.epochs[-1].epoch + 1
            self._freeze(number)
            self._finish_epoch(number, self._train(number))
        self.network.module.load_state_dict(self.best_state)

    def dice_of(self, number: int) -> float | None:
        """Dice after an epoch."""
        return next((item.dice for item in self.epochs if item.epoch == number), None)

    def _is_over(self) -> bool:
        last = self.epochs[-1].epoch
        waited = last - self.best if self._counts(self.best) else 0
        patience = self.options.patience
        return last >= self.options.epochs or (0 < patience <= waited)

    def _stage(self, number: int) -> tuple[int, int]:
        """The first epoch of the stage of an epoch, and that of the next stage. The learning rate
        starts anew with each."""
        options = self.options
        if options.portions is None:
            return 1, options.epochs + 1
        stage = options.portions.stage(number, options.epochs)
        first = options.portions.first_epoch
        return first(stage, options.epochs), first(stage + 1, options.epochs)

    def _share(self, number: int) -> float | None:
        """The share of the weights that is frozen after an epoch; None without portions."""
        portions = self.options.portions
        if portions is None:
            return None
        return portions.shares[portions.stage(number, self.options.epochs)] if number else 0.0

    def _counts(self, number: int) -> bool:
        """Whether an epoch may be kept: without portions all, else those with all weights."""
        return self._share(number) in (None, 1.0)

    def _freeze(self, number: int) -> None:
        share = self._share(number)
        if share is not None and self._stage(number)[0] == number:
            self.network.module.freeze_weights(share)
            logger.info("epoch %d: %g %% of the weights are frozen", number, 100 * share)

    def _train(self, number: int) -> float:
        module = self.network.module
        module.train()
        options = self.options
        steps = self.samples.steps(options.batch)
        if options.epoch_steps:
            steps = min(steps, options.epoch_steps)
        begin, end = self._stage(number)
        share = self._share(number)
        shown = "train" if share is None else f"train, {100 * share:g} %"
        total = 0.0
        batches = self.samples.batches(options.batch, options.augment, self.generator)
        for step, batch in enumerate(itertools.islice(batches, steps)):
            rate = rate_at((number - begin) * steps + step, steps, end - begin)
            for group in self.optimizer.param_groups:
                group["lr"] = group["highest"] * rate
            loss = self._step(batch)
            if not math.isfinite(loss):
                raise UsageError(
                    f"the loss of epoch {number} is {loss}; use a smaller --lr than "
                    f"{self.options.learning_rate:g}"
                )
            total += loss
            done = (number - begin) * steps + step + 1
            self.progress(shown, done, (end - begin) * steps)
        return total / steps

    def _step(self, batch: Batch) -> float:
        inputs = {name: data.to(self.device) for name, data in batch.inputs.items()}
        labels = batch.labels.to(self.device)
        taps = (self.target.value,)
        logits = self.target.logits(self.network.module(inputs, taps))
        known = None
        if self.teacher is not None:
            with torch.no_grad():
                known = self.target.logits(self.teacher(inputs, taps))
        loss = self.loss(logits, labels, known)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        step_in_units(self.optimizer, self.units)
        return float(loss.detach())

    def _finish_epoch(self, number: int, loss: float | None) -> None:
        """Validates, remembers the best, and writes the checkpoint."""
        dice = None
        options = self.options
        if number % options.validate_every == 0 or number == options.epochs:
            dice = self._dice()
        self.epochs.append(Epoch(number, loss, dice, self._share(number)))
        highest = self.dice_of(self.best) if self._counts(self.best) else None
        is_better = dice is not None and (highest is None or dice > highest)
        if is_better and self._counts(number):
            self.best, self.best_state = number, _copied(self.network.module)
        save_checkpoint(
            self.checkpoint,
            {
                "settings": dict(self.settings),
                "module": self.network.module.state_dict(),
                "best_module": self.best_state,
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "epochs": [dataclasses.asdict(item) for item in self.epochs],
            },
        )

    def _dice(self) -> float:
        integer = self.network.lowered().integer
        step = self.progress
        found = self.validation.dice(integer, lambda done, total: step("validate", done, total))
        return found.dice_quantized

    def _restore(self) -> None:
        content = load_checkpoint(self.checkpoint, self.settings)
        self.network.module.load_state_dict(content["module"])
        self.best_state = content["best_module"]
        self.best = content["best"]
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"])
        self.epochs = [Epoch(**item) for item in content["epochs"]]


def rate_at(step: int, steps: int, epochs: int) -> float:
    """The learning rate of a step as a share of the highest.

    It rises during the first epoch, while Adam has seen few gradients, then falls as a cosine.

    Args:
        step: counted from the first one of the run.
        steps: of an epoch.
        epochs: of the run.
    """
    done = step / (epochs * steps)
    cosine = LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2
    return min(1.0, (step + 1) / steps) * cosine


def scale_parameters(module: GraphModule) -> list[torch.nn.Parameter]:
    """Exponents of scales, of activations and of weights."""
    found = [] if module.scales is None else list(module.scales.parameters())
    return found + list(module.weight_quantizers.parameters())


def _copied(module: torch.nn.Module) -> dict[str, Any]:
    return {
        name: item.detach().clone() if isinstance(item, torch.Tensor) else dict(item)
        for name, item in module.state_dict().items()
    }
