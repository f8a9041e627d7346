"""Dice of the float network and of the compiled one on the same images."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.boundary import InputSpec, channel_axis
from qcompile.data import EvaluationData, tiles
from qcompile.errors import DataError
from qcompile.feeds import Feed, float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.report.examples import Example, choose_examples
from qcompile.report.metrics import (
    ClassScore,
    Decision,
    Rule,
    decision_for,
    is_probability,
    logit,
    mean_dice,
    score,
)
from qcompile.sim.parallel import map_many
from qcompile.types import Array, Shape

Progress = Callable[[int, int], None]
"""Called with (done, total) network runs."""

PARALLEL_ELEMENTS = 50_000_000
"""Computed elements from which starting processes pays."""


@dataclass(frozen=True)
class Evaluation:
    """What the network is worth before and after compilation, class by class."""

    float_scores: tuple[ClassScore, ...]
    quantized_scores: tuple[ClassScore, ...]
    examples: tuple[Example, ...] = field(default=(), compare=False, repr=False)

    @property
    def images(self) -> int:
        return len(self.float_scores[0].images)

    @property
    def dice_float(self) -> float:
        return mean_dice(self.float_scores)

    @property
    def dice_quantized(self) -> float:
        return mean_dice(self.quantized_scores)

    @property
    def drop(self) -> float:
        """How much Dice compilation costs; negative if it gains."""
        return self.dice_float - self.dice_quantized


def evaluate(
    float_graph: Graph,
    integer_graph: Graph,
    data: EvaluationData,
    specs: Mapping[str, InputSpec],
    threshold: float = 0.5,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Runs both graphs over all images and compares them with the labels.

    Images larger than the network's input are run tile by tile and judged as a whole.

    Args:
        float_graph: the imported network.
        integer_graph: the compiled one; its outputs may be of another kind (a class map).
        data: images and labels.
        specs: how pixels become real numbers, for each input.
        threshold: of the probability, for networks with one output channel.
        workers: processes; None is one a core. Small jobs run in this process anyway.
        progress: told of every run, of either graph.

    Raises:
        DataError: labels do not fit the images or the network's output.
    """
    shapes = {name: float_graph.types[name].shape for name in float_graph.inputs}
    total = 2 * sum(len(_grid_feeds(image, shapes)) for image in data.images)
    steps = _Counter(progress, total)
    spatial = _spatial(next(iter(shapes.values())))
    _check_labels(data, shapes)
    name, decision = decision_for(float_graph, spatial, threshold)
    float_run = _predict(
        float_graph, name, decision, data, shapes, lambda f: float_feed(f, specs), workers, steps
    )
    integer_name, integer_decision = decision_for(integer_graph, spatial, threshold)
    if integer_decision.rule is Rule.THRESHOLD:
        # The compiled graph keeps no trace of a sigmoid (it is a table there); the operator of
        # the same value in the float graph tells.
        origin = integer_name if integer_name in float_graph.types else name
        limit = threshold if is_probability(float_graph, origin) else logit(threshold)
        integer_decision = Decision(Rule.THRESHOLD, integer_decision.axis, limit, 2)
    integer_run = _predict(
        integer_graph,
        integer_name,
        integer_decision,
        data,
        shapes,
        lambda f: integer_feed(f, integer_graph, specs),
        workers,
        steps,
    )
    highest = max(int(label.max()) for label in data.labels)
    count = decision.classes or integer_decision.classes or max(2, highest + 1)
    labels = _labels(data.labels, count, highest)
    classes = range(1, count)
    before, after = score(float_run, labels, classes), score(integer_run, labels, classes)
    shown = [image[next(iter(shapes))] for image in data.images]
    examples = choose_examples(shown, labels, float_run, integer_run, before, after)
    return Evaluation(before, after, examples)


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._done = 0
        self._total = total

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _spatial(shape: Shape) -> Shape:
    axis = channel_axis(shape)
    return tuple(size for index, size in enumerate(shape) if index not in (0, axis))


def _grid_feeds(image: Feed, shapes: Mapping[str, Shape]) -> list[Feed]:
    """One image as network inputs, tiles row by row."""
    parts = {name: tiles(image[name], shape) for name, shape in shapes.items()}
    counts = {name: len(found) for name, found in parts.items()}
    if len(set(counts.values())) != 1:
        raise DataError(f"the inputs of an image are cut into different numbers of tiles: {counts}")
    return [
        {name: found[index] for name, found in parts.items()}
        for index in range(next(iter(counts.values())))
    ]


def _check_labels(data: EvaluationData, shapes: Mapping[str, Shape]) -> None:
    name, shape = next(iter(shapes.items()))
    axis = channel_axis(shape) - 1
    for index, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        sizes = tuple(size for place, size in enumerate(image[name].shape) if place != axis)
        if label.shape != sizes:
            raise DataError(
                f"label {index} has shape {list(label.shape)} where its image has {list(sizes)}; "
                f"give one class index for each pixel"
            )


def _predict(
    graph: Graph,
    output: str,
    decision: Decision,
    data: EvaluationData,
    shapes: Mapping[str, Shape],
    prepare: Callable[[Feed], Mapping[str, Array]],
    workers: int | None,
    step: Callable[[], None],
) -> list[Array]:
    """Class indices of every whole image."""
    counts = [len(_grid_feeds(image, shapes)) for image in data.images]
    elements = sum(graph.types[value].size for value in graph.activations()) * sum(counts)
    parts = map_many(
        graph,
        (prepare(feed) for image in data.images for feed in _grid_feeds(image, shapes)),
        functools.partial(_decide, output, decision),
        workers=1 if elements < PARALLEL_ELEMENTS else workers,
        progress=step,
    )
    tile = _spatial(next(iter(shapes.values())))
    maps = [
        assemble(list(itertools.islice(parts, count)), label.shape, tile)
        for count, label in zip(counts, data.labels, strict=True)
    ]
    # Lets the generator finish: it reports the last step and ends its processes.
    next(parts, None)
    return maps


def _decide(output: str, decision: Decision, values: Mapping[str, Array]) -> Array:
    return decision.apply(values[output])


def assemble(parts: Sequence[Array], shape: Shape, tile: Shape) -> Array:
    """Puts tiles [*tile], row by row, back into one map of `shape`."""
    whole = np.empty(shape, dtype=parts[0].dtype)
    grid = [size // length for size, length in zip(shape, tile, strict=True)]
    for index, part in enumerate(parts):
        corner = np.unravel_index(index, grid)
        place = tuple(
            slice(int(at) * length, (int(at) + 1) * length)
            for at, length in zip(corner, tile, strict=True)
        )
        whole[place] = part
    return whole


def _labels(labels: Sequence[Array], count: int, highest: int) -> list[Array]:
    """Labels as indices below `count`; masks of 0 and 255 are taken as 0 and 1.

    Raises:
        DataError: there are classes that the network does not know.
    """
    if highest < count:
        return list(labels)
    values = sorted({int(value) for label in labels for value in np.unique(label)})
    if count == 2 and values in ([0, 255], [255]):
        return [(label != 0).astype(np.int64) for label in labels]
    raise DataError(
        f"the labels have class {highest}, the network's output tells {count} classes (0 to "
        f"{count - 1}) apart; give labels of its classes"
    )
