"""One plan of a search, tried: quantised, costed and judged. This is what workers do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.boundary import InputSpec
from qcompile.data import EvaluationData
from qcompile.errors import QCompileError
from qcompile.evaluate import Judging, evaluate
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.logits import logits_sqnr
from qcompile.options import CompileOptions
from qcompile.passes.calibrate import Calibration
from qcompile.quantization import Quantization
from qcompile.search.costs_of_graph import costs_of
from qcompile.search.jobs import Json
from qcompile.search.measured import Measured
from qcompile.search.plan_json import plan_from_json

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
    options = problem.options
    lowered = Quantization(
        problem.graph, problem.calibration, problem.specs, options, problem.feeds
    ).lowered(plan_from_json(job["plan"]))
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
