"""One plan of a search, tried: quantised, costed and judged. This is what workers do."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.data import EvaluationData
from qcompile.errors import QCompileError
from qcompile.evaluate import Evaluation, Judging, evaluate
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.logits import logits_sqnr
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
        quantization: makes an integer network of a plan.
        reference: the float graph whose Dice counts, before pruning.
        feeds: raw calibration images, or inputs that were generated where there are none.
        evaluation: images with labels, if there are.
    """

    quantization: Quantization
    reference: Graph
    feeds: Sequence[Feed]
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
    options, specs = problem.quantization.options, problem.quantization.specs
    lowered = problem.quantization.lowered(plan_from_json(job["plan"]))
    costs = costs_of(lowered.integer, options)
    sqnr = logits_sqnr(lowered.real, lowered.integer, problem.feeds[:SQNR_IMAGES], specs)
    result = dataclasses.replace(costs, sqnr_db=sqnr)
    if problem.evaluation is None:
        return result
    found = _evaluated(problem, problem.evaluation, lowered.integer)
    return dataclasses.replace(result, dice=found.dice_quantized, dice_float=found.dice_float)


_last: tuple[weakref.ref[Problem], Evaluation] | None = None
"""In a worker: the problem it works on, and an evaluation. All candidates share its float half."""


def _evaluated(problem: Problem, data: EvaluationData, integer_graph: Graph) -> Evaluation:
    global _last
    known = _last[1] if _last is not None and _last[0]() is problem else None
    found = evaluate(
        problem.reference,
        integer_graph,
        data,
        problem.quantization.specs,
        Judging.of(problem.quantization.options),
        workers=1,
        known=known,
    )
    if known is None:
        _last = (weakref.ref(problem), found)
    return found
