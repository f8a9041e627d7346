"""The tensor that describes an image: the deepest feature map of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.receptive_field import strides
from qcompile.types import Array

MOST_NAMED = 8
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Features:
    """
    Attributes:
        value: name of the tensor.
        axes: its axes that are those of the image.
        channels: elements of a descriptor.
        stride: input pixels for each of its positions, all axes together.
    """

    value: str
    axes: tuple[int, ...]
    channels: int
    stride: Fraction

    def describe(self, data: Array) -> Array:
        """The mean over positions of the tensor, float64 [channels]."""
        return np.asarray(data.astype(np.float64).mean(axis=self.axes).reshape(-1))


def deepest_features(graph: Graph, name: str | None = None) -> Features:
    """The tensor with the largest total stride; of those the one with the most channels; of those
    the last one.

    Tensors without positions (pooled over the whole image) do not count: their stride says nothing.

    Args:
        graph: a float graph.
        name: of a value, or of the operator that writes it, in place of the deepest one.

    Raises:
        UsageError: there is no such value, or none whose positions can be followed.
    """
    found = {value: _features(graph, value, steps) for value, steps in strides(graph).items()}
    if name is not None:
        value = graph.by_name[name].output if name in graph.by_name else name
        if value in found:
            return found[value]
        known = "is no feature map" if value in graph.types else "does not exist"
        some = ", ".join(f"'{item}'" for item in list(found)[-MOST_NAMED:])
        raise UsageError(
            f"--features '{name}': {known} in '{graph.name}'; there are {some or 'none'}"
        )
    order = list(found.values())
    if not order:
        raise UsageError(
            f"'{graph.name}' has no feature map whose positions can be followed to the input's, so "
            f"images cannot be described; use a convolutional network"
        )
    return max(enumerate(order), key=lambda item: (item[1].stride, item[1].channels, item[0]))[1]


def _features(graph: Graph, value: str, steps: tuple[Fraction | None, ...]) -> Features:
    axes = tuple(axis for axis, step in enumerate(steps) if step is not None)
    shape = graph.types[value].shape
    return Features(
        value,
        axes,
        math.prod(size for axis, size in enumerate(shape) if axis not in axes),
        math.prod((step for step in steps if step is not None), start=Fraction(1)),
    )
