"""From a float graph and a plan to the integer network: what `--effort` buys.

float graph -> equalise channels -> scales of activations -> codes of weights -> lower
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcompile.boundary import InputSpec
from qcompile.feeds import Feed, float_feed
from qcompile.graph import Graph
from qcompile.logits import logits_sqnr
from qcompile.onnx_options import ONNX_TARGETS
from qcompile.options import CompileOptions, Effort, RangeMethod, Target
from qcompile.passes.base import Dump, Pass, run_passes
from qcompile.passes.calibrate import Calibration
from qcompile.passes.compensation import NEAREST, Recipe
from qcompile.passes.equalize_channels import Balance, EqualizeChannels
from qcompile.passes.imported_formats import has_grids
from qcompile.passes.lower_to_integer import LowerToInteger
from qcompile.passes.onnx_grids import OnnxGrids
from qcompile.passes.quantize_activations import QuantizeActivations
from qcompile.passes.quantize_weights import QuantizeWeights
from qcompile.plan import Plan

logger = logging.getLogger("qcompile")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to quantize.

    Attributes:
        recipe: how weights are rounded.
        balance: how channels are equalised; None leaves them as they are.
        ranges: how scales of activations are chosen; None as `--range-method` says.
    """

    recipe: Recipe
    balance: Balance | None = Balance.BOTH
    ranges: RangeMethod | None = None


PLAIN = Method(NEAREST, None)

METHODS: Mapping[Effort, tuple[Method, ...]] = {
    Effort.AUTO: (Method(Recipe()),),
    Effort.NEAREST: (PLAIN,),
    Effort.FAST: (Method(Recipe(positions=2000, rounds=1, sweeps=0, starts=(1.0,))),),
    Effort.NORMAL: (Method(Recipe()),),
    Effort.BEST: (
        Method(Recipe(positions=24000, rounds=4)),
        Method(Recipe(positions=24000, rounds=4), Balance.RANGES),
        Method(Recipe(positions=24000, rounds=4), None),
    ),
}
"""What each effort tries."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """One network in three forms.

    Attributes:
        real: floats; the function is that of the graph given, its channels may be equalised.
        quantized: the same values, with types and codes of weights.
        integer: what is emitted.
        method: by which it was made.
    """

    real: Graph
    quantized: Graph
    integer: Graph
    method: Method


@dataclass(frozen=True)
class Quantization:
    """Quantizes one simplified float graph by any plan.

    Attributes:
        graph: the float graph.
        calibration: what its values look like.
        specs: how pixels become real numbers, for each input.
        options: effort, range method, seed and target.
        feeds: raw calibration images; none where there is no data, and weights are then rounded
            to their nearest codes.
    """

    graph: Graph
    calibration: Calibration
    specs: Mapping[str, InputSpec]
    options: CompileOptions
    feeds: Sequence[Feed] = ()

    def methods(self) -> tuple[Method, ...]:
        """What is tried."""
        return METHODS[resolved_effort(self.options, self.graph, bool(self.feeds))]

    def lowered(
        self, plan: Plan, progress: Progress | None = None, dump: Dump | None = None
    ) -> Lowered:
        """The integer network of a plan; of several methods that one whose last sums are closest
        to the float network's on the calibration images.

        Args:
            plan: formats of the graph's values.
            progress: called with (done, total) operators, over all methods.
            dump: told of the graph after each pass of the method that is kept.
        """
        methods = self.methods()
        tried = []
        for index, method in enumerate(methods):
            step = _part(progress, index, len(methods))
            tried.append(self.by(method, plan, step, dump if len(methods) == 1 else None))
        if len(methods) == 1:
            return tried[0]
        marks = [logits_sqnr(found.real, found.integer, self.feeds, self.specs) for found in tried]
        for method, mark in zip(methods, marks, strict=True):
            logger.info("%s: %s dB", method, mark)
        best = max(range(len(methods)), key=lambda index: marks[index] or 0.0)
        if dump is not None:
            return self.by(methods[best], plan, None, dump)
        return tried[best]

    def by(
        self,
        method: Method,
        plan: Plan,
        progress: Progress | None = None,
        dump: Dump | None = None,
    ) -> Lowered:
        """The integer network of a plan by one method."""
        real, calibration = self.graph, self.calibration
        if method.balance is not None and calibration.values:
            equalize = EqualizeChannels(plan, calibration, self.specs, method.balance)
            real = run_passes(real, (equalize,), dump)
            calibration = equalize.calibrated(self.graph)
        feeds = [float_feed(feed, self.specs) for feed in self.feeds]
        ranges = method.ranges or self.options.range_method
        compensates = bool(method.recipe.positions and feeds)
        passes: tuple[Pass, ...] = (
            QuantizeActivations(plan, self.specs, calibration, ranges, snap=compensates),
            QuantizeWeights(plan, method.recipe, real, feeds, self.options.seed, progress),
        )
        if self.options.target.value in ONNX_TARGETS:
            passes += (OnnxGrids(integer_biases=self.options.target is Target.QDQ),)
        quantized = run_passes(real, passes, dump)
        integer = run_passes(quantized, (LowerToInteger(self.specs),), dump)
        return Lowered(real, quantized, integer, method)


def resolved_effort(options: CompileOptions, graph: Graph, has_images: bool) -> Effort:
    """The effort that is really made: published formats are taken to the letter, and so is what
    came with a quantised model."""
    if not has_images or options.takes_weights_as_trained or has_grids(graph):
        return Effort.NEAREST
    return Effort.NORMAL if options.effort is Effort.AUTO else options.effort


def _part(progress: Progress | None, index: int, count: int) -> Progress | None:
    """Progress of one of `count` equal parts."""
    if progress is None:
        return None
    return lambda done, total: progress(index * total + done, count * total)
