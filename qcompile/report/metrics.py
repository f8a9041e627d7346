"""Dice, and the class that a network's output says each pixel has.

Dice of class k with A = (prediction == k) and B = (label == k) is 2 |A and B| / (|A| + |B|); what
empty ones count is `EmptyDice`. "Mean" is the mean over images of the Dice of each image, "case"
the mean over volumes of the Dice of all their pixels, "pooled" counts the pixels of all images
together. Class 0 is background and not judged.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.data_options import DiceOver, EmptyDice
from qcompile.errors import DataError
from qcompile.graph import Graph
from qcompile.ops import (
    MOVEMENT,
    ArgMax,
    Dequantize,
    HardSigmoid,
    Quantize,
    Rescale,
    Sigmoid,
    Softmax,
    SumOp,
    Threshold,
)
from qcompile.types import Array, Shape


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixel counts of one class in one image: |A and B|, |A| + |B| and |B|."""

    common: int
    total: int
    wanted: int

    def dice(self, empty: EmptyDice = EmptyDice.ONE) -> float:
        """Dice; NaN where the image does not count."""
        return self._ratio(2 * self.common, self.total, empty)

    def iou(self, empty: EmptyDice = EmptyDice.ONE) -> float:
        """|A and B| / |A or B|; NaN where the image does not count."""
        return self._ratio(self.common, self.total - self.common, empty)

    def _ratio(self, part: int, whole: int, empty: EmptyDice) -> float:
        if empty is EmptyDice.SKIP and self.wanted == 0:
            return math.nan
        return part / whole if whole else float(empty is EmptyDice.ONE)


def pooled_overlap(parts: Iterable[Overlap]) -> Overlap:
    """The counts of several images together."""
    items = list(parts)
    return Overlap(
        sum(item.common for item in items),
        sum(item.total for item in items),
        sum(item.wanted for item in items),
    )


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class was found in a set of images.

    Attributes:
        label: of the class.
        images: counts of each.
        cases: for each image the number of its case, ascending from 0; empty without cases.
        empty: what images without the class count.
    """

    label: int
    images: tuple[Overlap, ...]
    cases: tuple[int, ...] = ()
    empty: EmptyDice = EmptyDice.ONE

    @property
    def mean(self) -> float:
        """Plain mean over images."""
        return counted_mean(self.per_image)

    @property
    def pooled(self) -> float:
        """Dice of the pixels of all images together."""
        return pooled_overlap(self.images).dice(self.empty)

    @property
    def per_image(self) -> tuple[float, ...]:
        """Dice of each image, NaN for those that do not count."""
        return tuple(item.dice(self.empty) for item in self.images)

    @property
    def by_case(self) -> tuple[Overlap, ...]:
        """The counts of each case; those of the images where there are no cases."""
        if not self.cases:
            return self.images
        members: list[list[Overlap]] = [[] for _ in range(max(self.cases) + 1)]
        for case, item in zip(self.cases, self.images, strict=True):
            members[case].append(item)
        return tuple(pooled_overlap(items) for items in members)

    @property
    def per_case(self) -> tuple[float, ...]:
        """Dice of the pixels of each case together, NaN for those that do not count."""
        return tuple(item.dice(self.empty) for item in self.by_case)

    @property
    def case_mean(self) -> float:
        """Plain mean over cases."""
        return counted_mean(self.per_case)

    @property
    def iou_mean(self) -> float:
        """Intersection over union, mean over images."""
        return counted_mean(item.iou(self.empty) for item in self.images)

    @property
    def iou_case_mean(self) -> float:
        """Intersection over union of the pixels of each case, mean over cases."""
        return counted_mean(item.iou(self.empty) for item in self.by_case)

    @property
    def iou_pooled(self) -> float:
        """Intersection over union of the pixels of all images together."""
        return pooled_overlap(self.images).iou(self.empty)

    def over(self, what: DiceOver) -> float:
        """Dice as the totals have it."""
        if what is DiceOver.CASE:
            return self.case_mean
        return self.pooled if what is DiceOver.POOLED else self.mean


def counted_mean(values: Iterable[float]) -> float:
    """The mean of those that count (are not NaN); NaN if none does."""
    counted = [value for value in values if not math.isnan(value)]
    return math.fsum(counted) / len(counted) if counted else math.nan


def overlap(prediction: Array, label: Array, index: int) -> Overlap:
    """Counts of class `index` in two arrays of class indices of one shape."""
    found, wanted = prediction == index, label == index
    count = int(np.count_nonzero(wanted))
    return Overlap(
        int(np.count_nonzero(found & wanted)), int(np.count_nonzero(found)) + count, count
    )


def overlaps(prediction: Array, label: Array, classes: Sequence[int]) -> tuple[Overlap, ...]:
    """The counts of several classes in one image."""
    return tuple(overlap(prediction, label, index) for index in classes)


def scores_from(
    counts: Sequence[Sequence[Overlap]],
    classes: Sequence[int],
    cases: tuple[int, ...] = (),
    empty: EmptyDice = EmptyDice.ONE,
) -> tuple[ClassScore, ...]:
    """The scores of all classes.

    Args:
        counts: for each image the counts of each class.
        classes: their labels.
        cases: as in `ClassScore`.
        empty: likewise.
    """
    return tuple(
        ClassScore(label, tuple(image[place] for image in counts), cases, empty)
        for place, label in enumerate(classes)
    )


def mean_dice(scores: Sequence[ClassScore], over: DiceOver = DiceOver.IMAGE) -> float:
    """The mean over classes: the number in `totals`."""
    return counted_mean(item.over(over) for item in scores)


class Rule(enum.Enum):
    """How a pixel's class follows from the output."""

    CLASS_MAP = "class map"
    THRESHOLD = "threshold"
    ARGMAX = "argmax"


@dataclass(frozen=True, slots=True)
class Decision:
    """Turns one network output into class indices.

    Attributes:
        rule: see `Rule`.
        axis: of the output's channels; None if it has no such axis.
        limit: THRESHOLD: class 1 is above it (in the output's own units).
        classes: how many there are, background included; 0 if the output does not say.
    """

    rule: Rule
    axis: int | None
    limit: float
    classes: int

    def apply(self, output: Array) -> Array:
        """Class indices [*spatial] from an output [1, ...]; uint8 where they fit."""
        kind = np.uint8 if 0 < self.classes <= 256 else np.int64
        if self.rule is Rule.ARGMAX:
            assert self.axis is not None
            return np.asarray(output.argmax(axis=self.axis)[0], dtype=kind)
        plane = output if self.axis is None else output.take(0, axis=self.axis)
        if self.rule is Rule.CLASS_MAP:
            return np.asarray(plane[0], dtype=kind)
        return np.asarray(plane[0] > np.float32(self.limit), dtype=kind)


def decision_for(graph: Graph, spatial: Shape, threshold: float) -> tuple[str, Decision]:
    """The output to judge (the first one that is a map over `spatial`) and how to read it.

    Args:
        graph: its outputs and whether they are logits or probabilities decide.
        spatial: [*spatial] of one network input's labels.
        threshold: of the probability, for outputs with one channel.

    Raises:
        DataError: no output is a map of the labels' size.
    """
    for name in graph.outputs:
        kind = graph.types[name]
        axis = _class_axis(kind.shape, spatial)
        if axis is None and kind.shape[1:] != spatial:
            continue
        count = 1 if axis is None else kind.shape[axis]
        if not kind.is_float:
            return name, Decision(Rule.CLASS_MAP, axis, 0.0, _class_map_size(graph, name))
        if count > 1:
            return name, Decision(Rule.ARGMAX, axis, 0.0, count)
        limit = threshold if is_probability(graph, name) else logit(threshold)
        return name, Decision(Rule.THRESHOLD, axis, limit, 2)
    shapes = ", ".join(str(list(graph.types[name].shape)) for name in graph.outputs)
    raise DataError(
        f"the labels of one network input have shape {list(spatial)}, which no output has "
        f"({shapes}); Dice needs a map of the input's size"
    )


def _class_axis(shape: Shape, spatial: Shape) -> int | None:
    for axis in (1, len(shape) - 1):
        if len(shape) == len(spatial) + 2 and shape[1:axis] + shape[axis + 1 :] == spatial:
            return axis
    return None


def _class_map_size(graph: Graph, value: str) -> int:
    while value in graph.producers:
        op = graph.producers[value]
        if isinstance(op, Threshold):
            return 2
        if isinstance(op, ArgMax):
            return graph.types[op.inputs[0]].shape[op.axis]
        if not isinstance(op, MOVEMENT):
            break
        value = op.inputs[0]
    return 0


def is_probability(graph: Graph, value: str) -> bool:
    """Whether a value is in 0..1 by construction: behind a sigmoid, a softmax or a clip."""
    while value in graph.producers:
        op = graph.producers[value]
        if isinstance(op, Sigmoid | HardSigmoid | Softmax):
            return True
        if isinstance(op, SumOp) and not op.activation.is_identity:
            return op.activation.low >= 0 and op.activation.high <= 1
        if not isinstance(op, (*MOVEMENT, Dequantize, Quantize, Rescale)):
            return False
        value = op.inputs[0]
    return False


def logit(probability: float) -> float:
    """The number whose sigmoid is `probability`; infinite at 0 and 1."""
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
