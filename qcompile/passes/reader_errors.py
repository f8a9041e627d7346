"""How much the readers of each channel would lose without it, measured on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import WEIGHTED
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.masked_constants import mixes_channels
from qcompile.passes.patches import Positions, patches_at
from qcompile.passes.score_errors import ScoreErrors, scored_attention
from qcompile.passes.weight_rows import to_rows
from qcompile.types import Array

POSITIONS = 8192
"""Outputs of a layer that are looked at, over all images."""
TINY = 1e-20
Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class GivenScores:
    """Scores of channels that are known already, comparable across layers."""

    by_channel: Mapping[Channel, float]

    @property
    def is_relative(self) -> bool:
        return False

    def scores(self, graph: Graph) -> Mapping[Channel, float]:
        return self.by_channel


def reader_errors(
    graph: Graph,
    feeds: Feeds,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Channel, float]:
    """The share of its readers' variance that each channel contributes, summed over the readers.

    For a reader with weights w[m, c, tap] and the patches x[c, tap] of its input::

        error[c] = mean over m of  w[m, c]' cov(x[c]) w[m, c]  /  var(sum over c of w[m, c]' x[c])

    This is the relative squared error of the reader's sums if channel c holds its mean. Means do
    not count: a bias takes them up. Local attention reads its queries with the keys: `ScoreErrors`.
    Channels that go together share the sum of their errors.

    Args:
        graph: a float graph.
        feeds: inputs of the network by name.
        seed: of the outputs looked at.
        progress: told of (done, total) images.
    """
    from qcompile.sim.executor import Executor

    readers = readers_of(graph)
    sums: dict[str, _Moments] = {}
    scored = [ScoreErrors(op, graph.constants[op.inputs[3]]) for op in scored_attention(graph)]
    each = max(1, POSITIONS // len(feeds))
    executor = Executor(graph)
    for index, feed in enumerate(feeds):

        def observe(value: str, data: Array, index: int = index) -> None:
            for op in readers.get(value, ()):
                patches = sampled_patches(graph, op, data, index, len(feeds), seed)
                sums.setdefault(op.name, _Moments()).add(graph, op, patches)
            for item in scored:
                item.add(value, data, each, np.random.default_rng((seed, index)))

        executor.run(feed, observe=observe)
        if progress is not None:
            progress(index + 1, len(feeds))
    errors: dict[Channel, float] = {}
    for value, ops in readers.items():
        for op in ops:
            for channel, error in enumerate(sums[op.name].errors(graph, op).tolist()):
                errors[(value, channel)] = errors.get((value, channel), 0.0) + error
    for item in scored:
        for queries, error in item.errors().items():
            errors[queries] = errors.get(queries, 0.0) + error
    result: dict[Channel, float] = {}
    for channels in channel_classes(graph).removable:
        known = [errors[channel] for channel in sorted(channels) if channel in errors]
        if known:
            result |= dict.fromkeys(channels, float(np.sum(known)))
    return result


def readers_of(graph: Graph) -> dict[str, list[Op]]:
    """Value -> the operators that weigh its channels against each other."""
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        if isinstance(op, WEIGHTED) and mixes_channels(graph, op):
            readers.setdefault(op.inputs[0], []).append(op)
    return readers


def sampled_patches(graph: Graph, op: Op, data: Array, image: int, images: int, seed: int) -> Array:
    """Patches [positions, channels * taps] of an operator's input, the same ones every time."""
    each = max(1, POSITIONS // images)
    generator = np.random.default_rng((seed, image))
    positions = Positions.drawn(graph.output_type(op).shape, op, each, generator)
    return np.asarray(patches_at(op, data, graph.types[op.inputs[1]].shape, positions)[0])


@dataclass
class _Moments:
    """Sums over the patches of one reader: each channel's taps, and the outputs."""

    count: int = 0
    taps: Array | float = 0.0
    squares: Array | float = 0.0
    outputs: Array | float = 0.0
    output_squares: Array | float = 0.0

    def add(self, graph: Graph, op: Op, patches: Array) -> None:
        channels = graph.types[op.inputs[0]].shape[1]
        split = patches.reshape(len(patches), channels, -1).transpose(1, 0, 2)
        self.squares = self.squares + np.matmul(split.transpose(0, 2, 1), split).astype("float64")
        self.taps = self.taps + split.sum(1, dtype="float64")
        outputs = (patches @ to_rows(op, graph.constants[op.inputs[1]]).T).astype("float64")
        self.outputs = self.outputs + outputs.sum(0)
        self.output_squares = self.output_squares + np.square(outputs).sum(0)
        self.count += len(patches)

    def errors(self, graph: Graph, op: Op) -> Array:
        """[channels]"""
        taps = np.asarray(self.taps) / self.count
        covariances = np.asarray(self.squares) / self.count - taps[:, :, None] * taps[:, None, :]
        mean = np.asarray(self.outputs) / self.count
        variances = np.asarray(self.output_squares) / self.count - np.square(mean)
        rows = to_rows(op, graph.constants[op.inputs[1]]).astype("float64")
        weights = rows.reshape(len(rows), len(taps), -1).transpose(1, 0, 2)
        parts = (np.matmul(weights, covariances) * weights).sum(2)
        return np.asarray((np.maximum(parts, 0) / np.maximum(variances, TINY)).mean(1))
