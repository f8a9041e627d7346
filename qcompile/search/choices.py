"""The slots of a search, each with the error that every width of it adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from qcompile.graph import Graph
from qcompile.options import CompileOptions, Effort
from qcompile.passes.calibrate import Calibration
from qcompile.plan import Format, Plan
from qcompile.search.activations import output_errors
from qcompile.search.covariances import input_covariances
from qcompile.search.greedy import Choice, Part
from qcompile.search.sensitivity import weight_errors
from qcompile.search.slots import output_formats, weight_formats
from qcompile.types import Array


def choices_of(
    graph: Graph,
    plan: Plan,
    calibration: Calibration,
    feeds: Sequence[Mapping[str, Array]],
    options: CompileOptions,
    activations: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[Choice]:
    """All slots: the weights of layers, and if `activations` the outputs of operators.

    Args:
        graph: a float graph.
        plan: what holds for tensors without a slot, and the widest for those with one.
        calibration: of the graph's activations; only needed with `activations`.
        feeds: network inputs by name, already preprocessed.
        options: overrides, quantizer, effort and seed.
        activations: whether narrower activations save anything.
        progress: called with (done, total) images.
    """
    covariances = input_covariances(graph, feeds, options.seed, progress)
    compensated = options.effort is not Effort.NEAREST
    formats = weight_formats(graph, plan, options)
    weights = weight_errors(graph, covariances, formats, compensated)
    found = [_choice(name, Part.WEIGHTS, errors) for name, errors in weights.items()]
    if activations:
        allowed = output_formats(graph, plan, options)
        outputs = output_errors(graph, calibration, covariances, allowed, options.range_method)
        found += [_choice(name, Part.OUTPUT, errors) for name, errors in outputs.items()]
    return found


def _choice(name: str, part: Part, errors: Mapping[Format, float]) -> Choice:
    return Choice((name, part), {chosen.bits: error for chosen, error in errors.items()})


def reweighted(choices: Sequence[Choice], power: float, outputs: float) -> list[Choice]:
    """The same with errors to a power, and those of outputs times a factor: another trade."""
    return [
        dataclasses.replace(
            choice,
            errors={
                bits: (outputs if choice.slot[1] is Part.OUTPUT else 1.0) * error**power
                for bits, error in choice.errors.items()
            },
        )
        for choice in choices
    ]
