"""Covariances of what each layer's weights are multiplied with, over the calibration images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph
from qcompile.ops import WEIGHTED
from qcompile.passes.patches import Positions, patches_at
from qcompile.types import Array

POSITIONS = 4096
"""Patches of one layer over all images."""
LARGEST_BLOCK = 2304
"""Columns whose covariances are kept with one another: 256 channels of a 3x3 kernel."""

TOGETHER = 1024
"""Patches that are multiplied at once."""


@dataclass(frozen=True)
class Covariances:
    """Covariances of the patches of one layer.

    Attributes:
        blocks: for each stretch of columns [groups, k, k]; between stretches nothing is kept.
        mean: of the patches [groups, columns].
        count: patches they were taken from.
    """

    blocks: tuple[Array, ...]
    mean: Array
    count: int

    @property
    def columns(self) -> int:
        """Columns of the layer's patches."""
        return sum(block.shape[-1] for block in self.blocks)


class _Sums:
    """Sums of products of patches; what comes is collected for products of a useful size."""

    def __init__(self, groups: int, columns: int) -> None:
        self.squares = _zeros(groups, columns)
        self.total = np.zeros((groups, columns))
        self.count = 0
        self.waiting: list[Array] = []

    def add(self, patches: Array) -> None:
        """`patches` [groups, positions, columns]."""
        self.waiting.append(patches)
        self.count += patches.shape[1]
        if sum(item.shape[1] for item in self.waiting) >= TOGETHER:
            self._multiply()

    def _multiply(self) -> None:
        if not self.waiting:
            return
        patches = np.concatenate(self.waiting, axis=1)
        self.waiting = []
        self.total += patches.sum(axis=1, dtype=np.float64)
        first = 0
        for square in self.squares:
            part = patches[:, :, first : first + square.shape[-1]]
            if len(part) == 1:
                square[0] += part[0].T @ part[0]  # BLAS computes half of it
            else:
                square += np.matmul(part.transpose(0, 2, 1), part)
            first += square.shape[-1]

    def result(self) -> Covariances:
        """Of everything that was added."""
        self._multiply()
        mean = self.total / max(1, self.count)
        blocks, first = [], 0
        for square in self.squares:
            part = mean[:, first : first + square.shape[-1]]
            square /= max(1, self.count)
            centred = square - part[:, :, None] * part[:, None, :]
            # Sums beyond float32 belong to networks that calibration refuses anyway.
            blocks.append(np.nan_to_num(centred.astype(np.float32), posinf=0, neginf=0))
            first += square.shape[-1]
        return Covariances(tuple(blocks), mean, self.count)


def input_covariances(
    graph: Graph,
    feeds: Sequence[Mapping[str, Array]],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Covariances]:
    """Runs the float graph on every feed and collects the covariances of all weighted operators.

    Args:
        graph: a float graph.
        feeds: network inputs by name, already preprocessed.
        seed: of the sampled positions.
        progress: called with (done, total) images.

    Returns:
        Operator name -> its covariances, centred: a mean error is what the bias takes up.
    """
    from qcompile.sim.executor import Executor

    layers = {op.name: op for op in graph.ops if isinstance(op, WEIGHTED)}
    readers: dict[str, list[str]] = {}
    for op in layers.values():
        readers.setdefault(op.inputs[0], []).append(op.name)
    sums: dict[str, _Sums] = {}
    each = max(1, -(-POSITIONS // max(1, len(feeds))))
    executor = Executor(graph)
    for index, feed in enumerate(feeds):

        def observe(value: str, data: Array, index: int = index) -> None:
            for name in readers.get(value, ()):
                op = layers[name]
                generator = np.random.default_rng((seed, index))
                shape = graph.output_type(op).shape
                positions = Positions.drawn(shape, op, each, generator)
                patches = patches_at(op, data, graph.types[op.inputs[1]].shape, positions)
                if name not in sums:
                    sums[name] = _Sums(patches.shape[0], patches.shape[2])
                sums[name].add(patches)

        executor.run(feed, observe=observe)
        if progress is not None:
            progress(index + 1, len(feeds))
    return {name: item.result() for name, item in sums.items()}


def _zeros(groups: int, columns: int) -> list[Array]:
    count = -(-columns // LARGEST_BLOCK)
    edges = [columns * index // count for index in range(count + 1)]
    return [
        np.zeros((groups, last - first, last - first), np.float32)
        for first, last in itertools.pairwise(edges)
    ]
