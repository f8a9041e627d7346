"""Dice of the float network and of the compiled one on the same images.

Images, tiles and masks are read one after the other: what stays in memory is a few counts for each
image, and its class maps in compressed form, for the pictures of the report.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.data.evaluation import EvaluationData
from qcompile.data.fitting import PLAIN
from qcompile.data.item import Lazy
from qcompile.data.masks import class_rule
from qcompile.data.tiling import Tiling, cut_tile, grid_of, spatial_shape
from qcompile.data_options import DataOptions, DiceOver, EmptyDice, MaskValues
from qcompile.errors import DataError
from qcompile.feeds import Feed, float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.report.examples import Example, choose_examples
from qcompile.report.metrics import (
    ClassScore,
    Decision,
    Overlap,
    Rule,
    decision_for,
    is_probability,
    logit,
    mean_dice,
    overlaps,
    scores_from,
)
from qcompile.report.objects import ObjectCounts, ObjectScore, counts_of_class, load_ndimage
from qcompile.sim.parallel import map_many
from qcompile.types import Array, Shape

Progress = Callable[[int, int], None]
"""Called with (done, total) network runs."""

Simulate = Callable[..., Iterator[Array]]
"""Runs a graph on many inputs and reduces each result: `map_many`, or what stands for it."""

PARALLEL_ELEMENTS = 50_000_000
"""Computed elements from which starting processes pays."""


@dataclass(frozen=True, slots=True)
class Judging:
    """How predictions are compared with masks; see `DataOptions`."""

    threshold: float = 0.5
    empty: EmptyDice = EmptyDice.ONE
    over: DiceOver = DiceOver.IMAGE
    objects: bool = False
    mask_values: MaskValues = MaskValues.AUTO

    @staticmethod
    def of(options: DataOptions) -> Judging:
        return Judging(
            options.metric_threshold,
            options.empty_dice,
            options.dice_over,
            options.object_metrics,
            options.mask_values,
        )


@dataclass(frozen=True)
class Evaluation:
    """What the network is worth before and after compilation, class by class.

    Attributes:
        float_scores: of the float network, class by class.
        quantized_scores: of the compiled one.
        examples: images to show.
        over: what the totals are means of.
        case_names: of the volumes or patients; empty without.
        float_objects: of single objects, class by class; empty unless asked for.
        quantized_objects: likewise.
        tiling: how large images were cut.
    """

    float_scores: tuple[ClassScore, ...]
    quantized_scores: tuple[ClassScore, ...]
    examples: tuple[Example, ...] = field(default=(), compare=False, repr=False)
    over: DiceOver = DiceOver.IMAGE
    case_names: tuple[str, ...] = ()
    float_objects: tuple[ObjectScore, ...] = ()
    quantized_objects: tuple[ObjectScore, ...] = ()
    tiling: Tiling = PLAIN

    @property
    def images(self) -> int:
        return len(self.float_scores[0].images)

    @property
    def empty(self) -> EmptyDice:
        return self.float_scores[0].empty

    @property
    def dice_float(self) -> float:
        return mean_dice(self.float_scores, self.over)

    @property
    def dice_quantized(self) -> float:
        return mean_dice(self.quantized_scores, self.over)

    @property
    def drop(self) -> float:
        """How much Dice compilation costs; negative if it gains."""
        return self.dice_float - self.dice_quantized


def evaluate(
    float_graph: Graph,
    integer_graph: Graph,
    data: EvaluationData,
    specs: Mapping[str, InputSpec],
    judging: Judging | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    known: Evaluation | None = None,
    simulate: Simulate = map_many,
) -> Evaluation:
    """Runs both graphs over all images and compares them with the labels.

    Images larger than the network's input are run tile by tile and judged as a whole.

    Args:
        float_graph: the imported network.
        integer_graph: the compiled one; its outputs may be of another kind (a class map).
        data: images and labels.
        specs: how pixels become real numbers, for each input.
        judging: threshold and rules of the metrics.
        workers: processes; None is one a core. Small jobs run in this process anyway.
        progress: told of every run, of either graph.
        known: an evaluation of the same float graph on the same data: what it says of that graph is
            taken over (and no examples are kept).
        simulate: runs the graphs.

    Raises:
        DataError: labels do not fit the images or the network's output.
    """
    judging = judging or Judging()
    if judging.objects:
        load_ndimage()
    shapes = {name: float_graph.types[name].shape for name in float_graph.inputs}
    spatial = spatial_shape(next(iter(shapes.values())))
    survey, tiling = data.survey, data.tiling
    _check_label(0, survey.sizes[0], data.images[0], shapes)
    runs = sum(len(tiling.grid(size, spatial)) for size in survey.sizes)
    steps = _Counter(progress, runs if known is not None else 2 * runs)
    name, decision = decision_for(float_graph, spatial, judging.threshold)
    integer_name, integer_decision = decision_for(integer_graph, spatial, judging.threshold)
    if integer_decision.rule is Rule.THRESHOLD:
        # The compiled graph keeps no trace of a sigmoid (it is a table there); the operator of
        # the same value in the float graph tells.
        origin = integer_name if integer_name in float_graph.types else name
        is_limit = is_probability(float_graph, origin)
        limit = judging.threshold if is_limit else logit(judging.threshold)
        integer_decision = Decision(Rule.THRESHOLD, integer_decision.axis, limit, 2)
    highest = max(survey.values, default=0)
    count = decision.classes or integer_decision.classes or max(2, highest + 1)
    rule = class_rule(survey.values, judging.mask_values, count)
    judge = _Judge(data, rule, range(1, count), judging)
    run = functools.partial(
        _class_maps, data=data, shapes=shapes, workers=workers, step=steps, simulate=simulate
    )
    before = None
    if known is None:
        before = judge.watch(run(float_graph, name, decision, lambda feed: float_feed(feed, specs)))
        float_scores, float_objects = judge.scores(before), judge.objects(before)
    else:
        float_scores, float_objects = known.float_scores, known.float_objects
    if math.isnan(mean_dice(float_scores, judging.over)):
        raise DataError(
            "--empty-dice skip: no mask has a class that the network tells apart, so nothing is "
            "left to judge; give masks with foreground"
        )
    after = judge.watch(
        run(
            integer_graph,
            integer_name,
            integer_decision,
            lambda feed: integer_feed(feed, integer_graph, specs),
        )
    )
    found = Evaluation(
        float_scores,
        judge.scores(after),
        (),
        judging.over,
        judge.case_names,
        float_objects,
        judge.objects(after),
        tiling,
    )
    return found if before is None else replace(found, examples=judge.examples(before, after))


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._done = 0
        self._total = total

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


@dataclass
class _Seen:
    """What is kept of one network's class maps: for each image the counts of all classes."""

    maps: _PackedMaps
    overlaps: list[tuple[Overlap, ...]] = field(default_factory=list)
    objects: list[tuple[ObjectCounts, ...]] = field(default_factory=list)


class _PackedMaps(Sequence[Array]):
    """Class maps, compressed: they have few values and large areas."""

    def __init__(self) -> None:
        self._packed: list[tuple[bytes, Shape, np.dtype[np.generic]]] = []

    def append(self, values: Array) -> None:
        self._packed.append((zlib.compress(values.tobytes(), 1), values.shape, values.dtype))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> Array:  # type: ignore[override]
        packed, shape, kind = self._packed[index]
        return np.frombuffer(zlib.decompress(packed), dtype=kind).reshape(shape)


class _Judge:
    """Compares the class maps of a network with the labels."""

    def __init__(
        self,
        data: EvaluationData,
        rule: Callable[[Array], Array],
        classes: Sequence[int],
        judging: Judging,
    ) -> None:
        self._data = data
        self._rule = rule
        self._classes = classes
        self._judging = judging
        self.case_names = tuple(dict.fromkeys(data.cases))
        numbers = {name: number for number, name in enumerate(self.case_names)}
        self._cases = tuple(numbers[name] for name in data.cases)

    def label(self, index: int) -> Array:
        return self._rule(self._data.labels[index])

    def watch(self, maps: Iterator[Array]) -> _Seen:
        seen = _Seen(_PackedMaps())
        for index, predicted in enumerate(maps):
            raw = self._data.labels[index]
            label = self._rule(raw)
            seen.maps.append(predicted)
            seen.overlaps.append(overlaps(predicted, label, self._classes))
            if self._judging.objects:
                known = raw if self._judging.mask_values is MaskValues.INSTANCES else None
                seen.objects.append(
                    tuple(counts_of_class(predicted, label, at, known) for at in self._classes)
                )
        return seen

    def scores(self, seen: _Seen) -> tuple[ClassScore, ...]:
        return scores_from(seen.overlaps, self._classes, self._cases, self._judging.empty)

    def examples(self, before: _Seen, after: _Seen) -> tuple[Example, ...]:
        """Images to show, chosen among all."""
        first = next(iter(self._data.images[0]))
        return choose_examples(
            Lazy(len(self._data.images), lambda at: self._data.images[at][first]),
            Lazy(len(self._data.labels), self.label),
            before.maps,
            after.maps,
            self.scores(before),
            self.scores(after),
        )

    def objects(self, seen: _Seen) -> tuple[ObjectScore, ...]:
        if not seen.objects:
            return ()
        return tuple(
            ObjectScore(label, tuple(image[place] for image in seen.objects), self._judging.empty)
            for place, label in enumerate(self._classes)
        )


def _check_label(index: int, size: Shape, image: Feed, shapes: Mapping[str, Shape]) -> None:
    """
    Raises:
        DataError: a label has not the size of its image.
    """
    name, shape = next(iter(shapes.items()))
    wanted = grid_of(image[name].shape, shape, PLAIN).image
    if size != wanted:
        raise DataError(
            f"label {index} has shape {list(size)} where its image has {list(wanted)}; "
            f"give one class index for each pixel"
        )


def _class_maps(
    graph: Graph,
    output: str,
    decision: Decision,
    prepare: Callable[[Feed], Mapping[str, Array]],
    *,
    data: EvaluationData,
    shapes: Mapping[str, Shape],
    workers: int | None,
    step: Callable[[], None],
    simulate: Simulate,
) -> Iterator[Array]:
    """Class indices of each whole image."""
    spatial = spatial_shape(next(iter(shapes.values())))
    sizes, tiling = data.survey.sizes, data.tiling
    runs = sum(len(tiling.grid(size, spatial)) for size in sizes)
    elements = sum(graph.types[value].size for value in graph.activations()) * runs
    parts = simulate(
        graph,
        (prepare(feed) for feed in tiles_of(data, shapes)),
        functools.partial(_decide, output, decision),
        workers=1 if elements < PARALLEL_ELEMENTS else workers,
        progress=step,
    )
    for size in sizes:
        grid = tiling.grid(size, spatial)
        yield grid.assemble(list(itertools.islice(parts, len(grid))))
    # Lets the generator finish: it reports the last step and ends its processes.
    next(parts, None)


def tiles_of(data: EvaluationData, shapes: Mapping[str, Shape]) -> Iterator[Feed]:
    """All images as network inputs, tiles row by row."""
    for index, image in enumerate(data.images):
        _check_label(index, data.survey.sizes[index], image, shapes)
        grids = {
            name: grid_of(image[name].shape, shape, data.tiling) for name, shape in shapes.items()
        }
        counts = {name: len(grid) for name, grid in grids.items()}
        if len(set(counts.values())) != 1:
            raise DataError(
                f"the inputs of an image are cut into different numbers of tiles: {counts}"
            )
        for tile in range(next(iter(counts.values()))):
            yield {
                name: cut_tile(image[name], shape, grids[name], tile)
                for name, shape in shapes.items()
            }


def _decide(output: str, decision: Decision, values: Mapping[str, Array]) -> Array:
    return decision.apply(values[output])
