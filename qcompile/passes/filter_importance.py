"""How much each filter matters: the size of its weights, or scores given by ONNX node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import numpy as np

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.prune_options import PruneMethod
from qcompile.types import Array

Filters = Conv | ConvTranspose | MatMul
"""The operators whose output channels are filters."""


class Importance(Protocol):
    """Scores of channels."""

    @property
    def is_relative(self) -> bool:
        """Scores say nothing across layers until each is divided by its layer's mean."""
        ...

    def scores(self, graph: Graph) -> Mapping[Channel, float]:
        """Scores of filters (small ones go first); channels without one stay.

        Args:
            graph: the float graph that is pruned.
        """
        ...


def is_filtering(graph: Graph, op: object) -> bool:
    """Whether the channels (axis 1) of an operator's output are filters of it."""
    if isinstance(op, MatMul):
        return graph.types[op.output].rank == 2
    return isinstance(op, (Conv, ConvTranspose))


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The size of a filter's weights, with the gain of a norm behind its activation.

    L1 is the mean of |w|, L2 the root of the mean of w * w. Run it after `FoldAffine`, when the
    weights contain the batch norms.
    """

    method: PruneMethod = PruneMethod.L1

    @property
    def is_relative(self) -> bool:
        return True

    def scores(self, graph: Graph) -> Mapping[Channel, float]:
        result: dict[Channel, float] = {}
        for op in graph.ops:
            if isinstance(op, Filters) and is_filtering(graph, op):
                for index, value in enumerate(self._sizes(graph, op).tolist()):
                    result[(op.output, index)] = value
        return result

    def _sizes(self, graph: Graph, op: Filters) -> Array:
        weights = graph.constants[op.inputs[1]].astype("float64")
        if isinstance(op, ConvTranspose):
            split = weights.reshape(op.groups, -1, *weights.shape[1:])
            weights = np.moveaxis(split, 2, 1)
        elif isinstance(op, MatMul):
            weights = weights.T
        rows = weights.reshape(graph.types[op.output].shape[1], -1)
        if self.method is PruneMethod.L2:
            sizes = np.sqrt(np.square(rows).mean(1))
        else:
            sizes = np.abs(rows).mean(1)
        return np.asarray(sizes * np.abs(np.array(op.activation.gain)))


@dataclass(frozen=True)
class NodeScores:
    """Scores of the output channels of ONNX nodes, comparable across layers.

    A node may be the convolution, or the norm or activation behind it: its channels are found in
    the imported graph, and with them all that goes together with them (`channel_classes`).

    Attributes:
        origin: the imported graph, channels first, in which every node is still an operator.
        by_node: node name -> score [C]. Channels that are tied share the mean of their scores.
        source: where they come from, for messages.
    """

    origin: Graph
    by_node: Mapping[str, Array]
    source: str

    @property
    def is_relative(self) -> bool:
        return False

    def scores(self, graph: Graph) -> Mapping[Channel, float]:
        """
        Raises:
            UsageError: a node does not exist, or has another number of channels.
        """
        given = self._given()
        result: dict[Channel, float] = {}
        for channels in channel_classes(self.origin).removable:
            known = [given[channel] for channel in sorted(channels) if channel in given]
            if known:
                result |= dict.fromkeys(channels, float(np.mean(known)))
        # Where the imported graph is still too scattered to tell: the operator of the same name.
        for op in graph.ops:
            for index, score in enumerate(self.by_node.get(op.name, ())):
                result.setdefault((op.output, index), float(score))
        return result

    def _given(self) -> dict[Channel, float]:
        result: dict[Channel, float] = {}
        for name, scores in self.by_node.items():
            op = self.origin.by_name.get(name)
            if op is None:
                close = get_close_matches(name, self.origin.by_name, 1)
                known = close or list(self.origin.by_name)[:1]
                raise UsageError(
                    f"{self.source}: no node of the model is called '{name}' (after constants are "
                    f"folded); use names such as '{known[0] if known else ''}'"
                )
            shape = self.origin.types[op.output].shape
            count = shape[1] if len(shape) > 1 else 0
            if len(scores) != count:
                raise UsageError(
                    f"{self.source}: {op.label()} has {count} channels, but {len(scores)} scores "
                    f"are given; give one for each"
                )
            for index, score in enumerate(scores):
                result[(op.output, index)] = float(score)
        return result
