"""What training makes small: soft Dice and cross-entropy, and the distance from a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.boundary import channel_axis
from qcompile.data.tiling import spatial_shape
from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import ArgMax, Sigmoid, Softmax, Threshold
from qcompile.report.metrics import Rule, decision_for, is_probability
from qcompile.train.augment import IGNORED

TEMPERATURE = 2.0
"""Softens what the teacher says of the classes."""
EDGE = 3
"""Pixels of another class within this window make a boundary."""
SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Target:
    """The value that is trained: logits, or probabilities where there are none.

    Attributes:
        value: its name.
        axis: of the classes.
        classes: how many there are; 2 where one channel says foreground.
        is_probability: see above.
    """

    value: str
    axis: int
    classes: int
    is_probability: bool

    def logits(self, values: dict[str, Tensor]) -> Tensor:
        """[N, classes or 1, *spatial]."""
        found = values[self.value].movedim(self.axis, 1)
        if not self.is_probability:
            return found
        clipped = found.clamp(SMALLEST, 1 - SMALLEST)
        return torch.logit(clipped) if found.shape[1] == 1 else torch.log(clipped)


def target_of(graph: Graph, threshold: float) -> Target:
    """What Dice is judged on, before softmax, sigmoid and decision.

    Args:
        graph: a float graph.
        threshold: of the probability, for outputs with one channel.

    Raises:
        DataError: no output is a map of the input's size.
        UsageError: what is judged is no map of classes.
    """
    spatial = spatial_shape(graph.types[graph.inputs[0]].shape)
    value, decision = decision_for(graph, spatial, threshold)
    axis = decision.axis
    while (op := graph.producers.get(value)) is not None and isinstance(
        op, ArgMax | Threshold | Softmax | Sigmoid
    ):
        value = op.inputs[0]
        axis = op.axis if isinstance(op, ArgMax) else axis
    kind = graph.types[value]
    if not kind.is_float or kind.rank != len(spatial) + 2:
        raise UsageError(
            f"'{value}' of shape {list(kind.shape)} is no map of classes that could be trained; "
            f"train a network whose output is one"
        )
    axis = channel_axis(kind.shape) if axis is None else axis
    channels = kind.shape[axis]
    if decision.rule is Rule.CLASS_MAP and channels == 1:
        channels = 2
    return Target(value, axis, max(2, channels), is_probability(graph, value))


@dataclass(frozen=True)
class Loss:
    """(1 - soft Dice) + cross-entropy, over the pixels that count.

    Attributes:
        weights: of the classes in the cross-entropy; None: all alike.
        dice: weight of the Dice term; cross-entropy has 1.
        boundary: what boundary pixels weigh more in the cross-entropy.
        distillation: weight of the divergence from the teacher's classes.
    """

    weights: tuple[float, ...] | None = None
    dice: float = 1.0
    boundary: float = 0.0
    distillation: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Tensor:
        """
        Args:
            logits: [N, classes, *spatial], or [N, 1, *spatial] of the foreground.
            labels: [N, *spatial] class indices, `IGNORED` where pixels do not count.
            teacher: its logits.
        """
        if logits.shape[1] == 1:
            # Two classes, one of whose logits is 0: the same probabilities.
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            if teacher is not None:
                teacher = torch.cat([torch.zeros_like(teacher), teacher], dim=1)
        counted = labels != IGNORED
        result = self._cross_entropy(logits, labels, counted)
        if self.dice:
            result = result + self.dice * dice_loss(logits, labels, counted)
        if self.distillation and teacher is not None:
            result = result + self.distillation * divergence(logits, teacher)
        return result

    def _cross_entropy(self, logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        of_class = None
        pixel = counted.to(logits.dtype)
        if self.weights is not None:
            of_class = torch.tensor(self.weights, dtype=logits.dtype, device=logits.device)
            pixel = pixel * of_class[labels.clamp(min=0)]
        if self.boundary:
            pixel = pixel * (1 + self.boundary * edges(labels).to(logits.dtype))
        each = functional.cross_entropy(logits, labels.clamp(min=0), weight=None, reduction="none")
        return (each * pixel).sum() / pixel.sum().clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """1 - the mean over foreground classes of the soft Dice of the whole batch."""
    mask = counted[:, None].to(logits.dtype)
    found = torch.softmax(logits, dim=1) * mask
    wanted = functional.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1) * mask
    axes = (0, *range(2, logits.ndim))
    common = (found * wanted).sum(dim=axes)
    total = found.sum(dim=axes) + wanted.sum(dim=axes)
    return 1 - ((2 * common + 1) / (total + 1))[1:].mean()


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened classes, a pixel."""
    student = functional.log_softmax(logits / TEMPERATURE, dim=1)
    known = functional.log_softmax(teacher / TEMPERATURE, dim=1)
    each = functional.kl_div(student, known, reduction="none", log_target=True).sum(dim=1)
    return each.mean() * TEMPERATURE**2


def edges(labels: Tensor) -> Tensor:
    """Pixels with another class in the window around them."""
    marks = labels.float()[:, None]
    pool = functional.max_pool2d if labels.ndim == 3 else functional.max_pool3d
    highest = pool(marks, EDGE, 1, EDGE // 2)
    lowest = -pool(-marks, EDGE, 1, EDGE // 2)
    return (highest != lowest)[:, 0]
