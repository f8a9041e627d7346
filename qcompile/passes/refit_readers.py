"""After pruning: the layers that are left learn from images to say what they said before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.passes.channel_classes import Channel
from qcompile.passes.parameters import add_float, exact, vector
from qcompile.passes.reader_errors import Feeds, readers_of, sampled_patches
from qcompile.passes.weight_rows import from_rows, to_rows
from qcompile.types import Array

DAMPING = 0.01
"""Of the mean of the covariance's diagonal: holds weights that the images say nothing about."""
MOST_COLUMNS = 6144
"""Layers with more weights a filter only get a new bias."""
OUTPUTS_PER_WEIGHT = 1.5
"""So do layers with fewer outputs to learn from (products behind a global mean)."""
UNCHANGED = 1e-6
"""Layers whose relative error is below this saw nothing of the pruning."""


def peak_bytes(graph: Graph) -> int:
    """The most that one image's values take at a time, running operator after operator."""
    last = {value: op.name for op in graph.ops for value in op.inputs}
    alive = peak = sum(graph.types[name].storage_bytes for name in graph.inputs)
    for op in graph.ops:
        alive += graph.output_type(op).storage_bytes
        peak = max(peak, alive)
        done = [name for name in dict.fromkeys(op.inputs) if not graph.is_constant(name)]
        alive -= sum(graph.types[name].storage_bytes for name in done if last[name] == op.name)
    return peak


@dataclass(frozen=True, slots=True)
class RefitReaders:
    """Fits the weights behind removed filters to the outputs of the network before pruning.

    Layer after layer, in order: with x the patches that a layer reads in the pruned network (whose
    earlier layers are fitted already) and t what its sums were in the network before pruning, its
    weights W and bias b become the solution of::

        minimise  mean |t - (W + D) x - b'|^2  +  damping * |D|^2      over D and b'

    a ridge regression of the error on the patches. No gradients, no labels; activations between
    layers stay as they are. Depthwise and grouped layers keep their weights.

    Attributes:
        original: the graph before pruning.
        removed: the channels that pruning took.
        feeds: inputs of the network by name.
        seed: of the outputs looked at.
        progress: told of (done, total) operators.
    """

    name: ClassVar[str] = "refit-readers"

    original: Graph
    removed: frozenset[Channel]
    feeds: Feeds
    seed: int = 0
    progress: Callable[[int, int], None] | None = None

    def run(self, graph: Graph) -> Graph:
        """The pruned graph with other weights."""
        from qcompile.sim.threads import single_threaded_blas

        with single_threaded_blas():
            return self._run(graph)

    def _run(self, graph: Graph) -> Graph:
        from qcompile.sim.table import KERNELS

        targets = self._targets()
        rewriter = Rewriter(graph)
        # All images go through the network side by side: a layer is fitted before it is run.
        images = [dict(feed) for feed in self.feeds]
        last = {value: op.name for op in graph.ops for value in op.inputs}
        for index, op in enumerate(graph.ops):
            parameters = {
                name: graph.constants[name] for name in op.inputs if name in graph.constants
            }
            fitted = op
            if op.name in targets:
                data = [image[op.inputs[0]] for image in images]
                found = self._fit(graph, op, data, targets.pop(op.name))
                if found is not None:
                    names = [
                        add_float(rewriter, f"{op.name}.{suffix}", array)
                        for suffix, array in zip(("weight", "bias"), found, strict=True)
                    ]
                    fitted = dataclasses.replace(op, inputs=(op.inputs[0], *names))
                    parameters = {
                        name: np.ascontiguousarray(array, dtype="float32")
                        for name, array in zip(names, found, strict=True)
                    }
                    rewriter.replace(op, fitted)
            kind = graph.output_type(op)
            kernel = KERNELS[type(op)].float_
            assert kernel is not None
            for image in images:
                inputs = [
                    parameters[name] if name in parameters else image[name]
                    for name in fitted.inputs
                ]
                image[op.output] = kernel(fitted, inputs, kind)
                for name in dict.fromkeys(op.inputs):
                    if last[name] == op.name:
                        image.pop(name, None)
            if self.progress is not None:
                self.progress(index + 1, len(graph.ops))
        return rewriter.finish()

    def _targets(self) -> dict[str, Array]:
        """Operator name -> its sums [positions, outputs that stay] in the original network."""
        from qcompile.sim.executor import Executor

        graph = self.original
        readers = readers_of(graph)
        found: dict[str, list[Array]] = {}
        executor = Executor(graph)
        for index, feed in enumerate(self.feeds):

            def observe(value: str, data: Array, index: int = index) -> None:
                for op in readers.get(value, ()):
                    count = graph.types[op.output].shape[1]
                    kept = [c for c in range(count) if (op.output, c) not in self.removed]
                    patches = self._patches(graph, op, data, index)
                    rows = to_rows(op, graph.constants[op.inputs[1]])[kept]
                    bias = vector(graph, op.inputs, 2, count, 0.0)[kept]
                    sums = (patches @ rows.T + bias).astype("float32")
                    found.setdefault(op.name, []).append(sums)

            executor.run(feed, observe=observe)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _patches(self, graph: Graph, op: Op, data: Array, image: int) -> Array:
        return sampled_patches(graph, op, data, image, len(self.feeds), self.seed)

    def _fit(
        self, graph: Graph, op: Op, data: list[Array], target: Array
    ) -> tuple[Array, Array] | None:
        """Weights and bias of one layer; None where nothing changed before it."""
        patches = np.concatenate(
            [self._patches(graph, op, image, index) for index, image in enumerate(data)]
        )
        weights = exact(graph, op.inputs[1])
        rows = to_rows(op, weights)
        bias = vector(graph, op.inputs, 2, len(rows), 0.0)
        error = target - patches @ rows.T.astype("float32") - bias.astype("float32")
        if np.abs(error).max() <= UNCHANGED * np.abs(target).max():
            return None
        mean, mean_error = patches.mean(0, dtype="float64"), error.mean(0, dtype="float64")
        change = np.zeros_like(rows)
        if patches.shape[1] <= min(MOST_COLUMNS, len(patches) / OUTPUTS_PER_WEIGHT):
            centred = patches - mean.astype("float32")
            covariance = (centred.T @ centred).astype("float64") / len(patches)
            diagonal = np.einsum("ii->i", covariance)
            if diagonal.any():
                diagonal += DAMPING * diagonal.mean()
                answer = centred.T @ (error - mean_error.astype("float32"))
                change = np.linalg.solve(covariance, answer.astype("float64") / len(patches)).T
        bias = bias + mean_error - change @ mean
        return from_rows(op, rows + change, weights.shape), bias
