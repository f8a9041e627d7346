"""The networks of an ensemble, ready to run: in float, or as the integers of the compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qcompile.boundary import InputKind, InputSpec
from qcompile.data.tiling import spatial_shape
from qcompile.errors import DataError, UsageError
from qcompile.feeds import Feed, float_feed, input_specs, integer_feed
from qcompile.graph import Graph, Stage
from qcompile.importer import import_model
from qcompile.ops import Dequantize
from qcompile.options import CompileOptions, InputChoice, OutputKind, Target
from qcompile.passes.base import run_passes
from qcompile.pipeline import compile_model, input_shapes, simplify_passes
from qcompile.report.layers import real_scale
from qcompile.report.metrics import Decision, Rule, decision_for
from qcompile.sim.parallel import map_many
from qcompile.suggest.features import Features, deepest_features
from qcompile.types import Array, Shape

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total)"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one network says of one input.

    Attributes:
        chances: probability of each class that is told apart, float32 [classes, *spatial].
        descriptor: float64 [channels].
    """

    chances: Array
    descriptor: Array


@dataclass(frozen=True)
class Member:
    """
    Attributes:
        name: of its file.
        graph: float or integer; its output are probabilities.
        output: name of the output.
        axis: of the output's channels; None without.
        classes: background included.
        features: what describes an image, named as in the float graph.
        feature_value: its name in `graph`.
        specs: what pixels mean.
        formats: of its numbers, for people.
    """

    name: str
    graph: Graph
    output: str
    axis: int | None
    classes: int
    features: Features
    feature_value: str
    specs: Mapping[str, InputSpec]
    formats: str

    @property
    def shape(self) -> Shape:
        """Of its input."""
        return self.graph.types[self.graph.inputs[0]].shape

    def run(self, feeds: Iterable[Feed], workers: int | None) -> Iterator[Seen]:
        """What it says of each raw input, in order."""
        return map_many(
            self.graph,
            (self._feed(feed) for feed in feeds),
            _Reduce(self),
            taps={self.feature_value},
            workers=workers,
        )

    def _feed(self, feed: Feed) -> dict[str, Array]:
        named = dict(zip(self.graph.inputs, feed.values(), strict=True))
        if self.graph.stage is Stage.INTEGER:
            return integer_feed(named, self.graph, self.specs)
        return float_feed(named, self.specs)


class _Reduce:
    """From the tensors of a run to `Seen`; travels to other processes."""

    def __init__(self, member: Member) -> None:
        self._output, self._axis = member.output, member.axis
        self._value, self._features = member.feature_value, member.features
        self._scales = {
            value: real_scale(member.graph.types[value]) for value in (self._output, self._value)
        }

    def __call__(self, values: Mapping[str, Array]) -> Seen:
        data = self._real(values, self._output)
        chances = data if self._axis is None else np.moveaxis(data, self._axis, 1)[0]
        if self._axis is not None and len(chances) == 2:
            chances = chances[1:]  # the background's is 1 minus that, with the same deviation
        features = self._real(values, self._value)
        return Seen(np.asarray(chances, dtype=np.float32), self._features.describe(features))

    def _real(self, values: Mapping[str, Array], name: str) -> Array:
        scale = self._scales[name]
        return values[name] if scale is None else np.asarray(values[name] * scale)


def load_member(
    model: Path,
    options: CompileOptions,
    quantised: bool,
    kind: InputKind,
    features: str | None,
    progress: Progress | None = None,
) -> Member:
    """Imports a model, and compiles it if its integers are to run.

    Args:
        model: the ONNX file.
        options: of the compilation; `calib` names the images that ranges are found on.
        quantised: whether the compiled network runs, bit by bit, in the simulator.
        kind: what the images are.
        features: as in `deepest_features`.
        progress: told about the long stages.

    Raises:
        QCompileError: the model or the options are wrong.
    """
    options = replace(
        options,
        output_kind=OutputKind.PROBABILITIES,
        input_kind=InputChoice(kind.value),
        target=Target.SIM,
    )
    imported = import_model(model, input_shapes(model, options))
    check_one_input(imported, model)
    specs = input_specs(imported, kind, options)
    real = run_passes(imported, simplify_passes(options))
    graph = real
    formats = "float"
    if quantised:
        graph = compile_model(model, options, progress).integer_graph
        formats = f"{options.quantizer} W{options.wbits}/A{options.abits}"
    chosen = deepest_features(real, features)
    spatial = spatial_shape(real.types[real.inputs[0]].shape)
    name, decision = _decision(real, model, spatial)
    return Member(
        model.name,
        graph,
        name,
        decision.axis,
        decision.classes,
        chosen,
        _value_in(graph, chosen.value, model),
        specs,
        formats,
    )


def check_one_input(graph: Graph, model: Path) -> None:
    """
    Raises:
        UsageError: there are several.
    """
    if len(graph.inputs) != 1:
        raise UsageError(
            f"{model}: takes {len(graph.inputs)} inputs; only networks of one image can be asked"
        )


def _decision(graph: Graph, model: Path, spatial: Shape) -> tuple[str, Decision]:
    try:
        name, decision = decision_for(graph, spatial, 0.5)
    except DataError:
        raise UsageError(
            f"{model}: no output is a map of the input's size {list(spatial)}, so there are no "
            f"pixels to be uncertain about; use a segmentation network"
        ) from None
    if decision.rule is Rule.CLASS_MAP:
        raise UsageError(f"{model}: returns classes, not probabilities; export its logits")
    return name, decision


def _value_in(graph: Graph, value: str, model: Path) -> str:
    """Where a graph, compiled or not, has a value of the float graph."""
    producer = graph.producers.get(value)
    if isinstance(producer, Dequantize):
        value = producer.inputs[0]
        producer = graph.producers.get(value)
    if producer is None or not (
        graph.types[value].is_float or graph.types[value].quantization is not None
    ):
        raise UsageError(
            f"{model}: the compiled network has no tensor '{value}' any more; choose another one "
            f"with --features"
        )
    return value


def check_alike(members: Sequence[Member]) -> None:
    """
    Raises:
        UsageError: two networks take or return different things.
    """
    first = members[0]
    for other in members[1:]:
        for what, one, two in (
            ("takes", list(first.shape), list(other.shape)),
            ("tells apart classes:", first.classes, other.classes),
            (
                "describes images by numbers:",
                first.features.channels,
                other.features.channels,
            ),
        ):
            if one != two:
                raise UsageError(
                    f"--models: {other.name} {what} {two} where {first.name} has {one}; "
                    f"the networks of an ensemble must be alike"
                )
