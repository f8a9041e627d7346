"""One plan of a search, tried: quantised, costed and judged. This is what workers do."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.data import EvaluationData
from qcompile.errors import QCompileError
from qcompile.evaluate import Judging, evaluate
from qcompile.feeds import Feed, float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import first_and_last
from qcompile.passes.calibrate import Calibration
from qcompile.report.layers import real_scale
from qcompile.search.costs_of_graph import costs_of
from qcompile.search.jobs import Json
from qcompile.search.measured import Measured
from qcompile.search.plan_json import plan_from_json
from qcompile.sim.executor import Executor
from qcompile.types import Array

SQNR_IMAGES = 8


@dataclass(frozen=True)
class Problem:
    """What all candidates of a search share; it is sent to every worker once.

    Attributes:
        graph: the float graph that is quantised.
        reference: the float graph whose Dice counts, before pruning.
        calibration: of `graph`.
        feeds: raw calibration images.
        specs: how pixels become real numbers, for each input.
        options: the target, and how to round.
        evaluation: images with labels, if there are.
    """

    graph: Graph
    reference: Graph
    calibration: Calibration
    feeds: Sequence[Feed]
    specs: Mapping[str, InputSpec]
    options: CompileOptions
    evaluation: EvaluationData | None


def try_plan(problem: Problem, job: Json) -> Json:
    """Measures the plan of a job, {"plan": ...}; a plan the target refuses is a result, too."""
    started = time.perf_counter()
    try:
        result = _measured(problem, job)
    except QCompileError as error:
        result = Measured(refused=str(error))
    seconds = round(time.perf_counter() - started, 3)
    return dataclasses.replace(result, seconds=seconds).to_json()


def _measured(problem: Problem, job: Json) -> Measured:
    from qcompile.pipeline import quantize_and_lower

    options = problem.options
    lowered = quantize_and_lower(
        problem.graph,
        plan_from_json(job["plan"]),
        problem.calibration,
        problem.specs,
        options,
        problem.feeds,
    )
    costs = costs_of(lowered.integer, options)
    sqnr = logits_sqnr(lowered.real, lowered.integer, problem.feeds[:SQNR_IMAGES], problem.specs)
    result = dataclasses.replace(costs, sqnr_db=sqnr)
    if problem.evaluation is None:
        return result
    found = evaluate(
        problem.reference,
        lowered.integer,
        problem.evaluation,
        problem.specs,
        Judging.of(options),
        workers=1,
    )
    return dataclasses.replace(result, dice=found.dice_quantized, dice_float=found.dice_float)


def logits_sqnr(
    float_graph: Graph, integer_graph: Graph, feeds: Sequence[Feed], specs: Mapping[str, InputSpec]
) -> float | None:
    """Signal to noise of what the last layers compute, in dB; None if nothing can be compared.

    Args:
        float_graph: the network before quantization.
        integer_graph: compiled from it, with the same names of values.
        feeds: raw inputs.
        specs: how pixels become real numbers, for each input.
    """
    values = _last_values(float_graph, integer_graph)
    if not values:
        return None
    float_run, integer_run = Executor(float_graph), Executor(integer_graph)
    signal = noise = 0.0
    for feed in feeds:
        real = float_run.run(float_feed(feed, specs), taps=values)
        found = integer_run.run(integer_feed(feed, integer_graph, specs), taps=values)
        for value in values:
            wanted = real[value].astype(np.float64)
            signal += float(np.square(wanted).sum())
            noise += float(np.square(_real(integer_graph, value, found[value]) - wanted).sum())
    if signal == 0:
        return None
    return round(10 * math.log10(signal / max(noise, signal * 1e-15)), 3)


def _real(graph: Graph, value: str, data: Array) -> Array:
    scale = real_scale(graph.types[value])
    return data.astype(np.float64) if scale is None else data * scale


def _last_values(float_graph: Graph, integer_graph: Graph) -> list[str]:
    """Of each branch that ends in a graph output the first value behind all weights that both
    graphs have."""
    tail = first_and_last(float_graph)[1]
    values: list[str] = []
    covered: set[str] = set()
    for op in float_graph.ops:
        if op.name not in tail or op.output not in integer_graph.types:
            continue
        kind = integer_graph.types[op.output]
        same = kind.shape == float_graph.types[op.output].shape
        comparable = same and (kind.is_float or kind.quantization is not None)
        if covered.intersection(op.inputs):
            covered.add(op.output)
        elif comparable and float_graph.types[op.output].is_float:
            values.append(op.output)
            covered.add(op.output)
    return values
