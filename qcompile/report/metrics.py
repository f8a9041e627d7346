"""Dice, and the class that a network's output says each pixel has.

Dice of class k with A = (prediction == k) and B = (label == k) is 2 |A and B| / (|A| + |B|), and 1
if both are empty. "Mean" is the mean over images of the Dice of each image; "pooled" counts the
pixels of all images together. Class 0 is background and not judged.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """Pixel counts of one class in one image: |A and B| and |A| + |B|."""

    common: int
    total: int

    @property
    def dice(self) -> float:
        return 2 * self.common / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class was found in a set of images."""

    label: int
    images: tuple[Overlap, ...]

    @property
    def mean(self) -> float:
        """Plain mean over images."""
        return math.fsum(item.dice for item in self.images) / len(self.images)

    @property
    def pooled(self) -> float:
        """Dice of the pixels of all images together."""
        return Overlap(
            sum(item.common for item in self.images), sum(item.total for item in self.images)
        ).dice

    @property
    def per_image(self) -> tuple[float, ...]:
        return tuple(item.dice for item in self.images)


def overlap(prediction: Array, label: Array, index: int) -> Overlap:
    """Counts of class `index` in two arrays of class indices of one shape."""
    found, wanted = prediction == index, label == index
    return Overlap(
        int(np.count_nonzero(found & wanted)),
        int(np.count_nonzero(found)) + int(np.count_nonzero(wanted)),
    )


def score(
    predictions: Sequence[Array], labels: Sequence[Array], classes: Sequence[int]
) -> tuple[ClassScore, ...]:
    """The scores of all classes over a set of images (class indices, one array an image)."""
    return tuple(
        ClassScore(
            index,
            tuple(
                overlap(prediction, label, index)
                for prediction, label in zip(predictions, labels, strict=True)
            ),
        )
        for index in classes
    )


def mean_dice(scores: Sequence[ClassScore]) -> float:
    """The mean over classes of the mean Dice: the number in `totals`."""
    return math.fsum(item.mean for item in scores) / len(scores)


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
        """int64 [*spatial] from an output [1, ...]."""
        if self.rule is Rule.ARGMAX:
            assert self.axis is not None
            return np.asarray(output.argmax(axis=self.axis)[0], dtype=np.int64)
        plane = output if self.axis is None else output.take(0, axis=self.axis)
        if self.rule is Rule.CLASS_MAP:
            return np.asarray(plane[0], dtype=np.int64)
        return np.asarray(plane[0] > np.float32(self.limit), dtype=np.int64)


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
