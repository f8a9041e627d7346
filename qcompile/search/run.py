"""A search from options and data: where it runs, where it keeps its results, what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qcompile.passes.assign_formats import assign_formats
from qcompile.search.candidate import Problem, try_plan
from qcompile.search.choices import choices_of
from qcompile.search.dask_runner import DaskRunner
from qcompile.search.evaluator import Evaluator
from qcompile.search.found import Found
from qcompile.search.identity import identity_of
from qcompile.search.jobs import Runner
from qcompile.search.local_runner import LocalRunner
from qcompile.search.metrics import METRICS, ON_ACTIVATIONS, leading_metric
from qcompile.search.store import Store, default_folder
from qcompile.search.widths import WidthSearch
from qcompile.sim.threads import cores

Progress = Callable[[int, int], None]


def search_widths(
    problem: Problem, sensitivity: Progress | None = None, progress: Progress | None = None
) -> Found:
    """The plan that keeps the budgets of the problem's options, and all that was tried for it.

    Args:
        problem: network, data and options.
        sensitivity: told of images, while the errors of widths are measured.
        progress: told of candidates.

    Raises:
        QCompileError: a budget is out of reach.
        GateError: no plan keeps --max-dice-drop.
        ToolError: the cluster cannot be reached.
        OSError: results cannot be kept.
    """
    quantization = problem.quantization
    options, graph = quantization.options, quantization.graph
    plan = assign_formats(graph, options)
    named = {leading_metric(options).name}
    named |= {metric.name for metric in METRICS if getattr(options, metric.option) is not None}
    wide = options.abits.isdigit() and 8 < int(options.abits) <= 16 and "arena" in named
    choices = choices_of(
        quantization,
        plan,
        problem.feeds,
        activations=wide or not named.isdisjoint(ON_ACTIVATIONS),
        progress=sensitivity,
    )
    workers = options.workers or cores()
    runner: Runner = LocalRunner(problem, try_plan, workers)
    if options.scheduler is not None:
        runner = DaskRunner(_in_memory(problem), try_plan, options.scheduler)
    store = Store(options.search_cache or default_folder())
    evaluator = Evaluator(identity_of(problem), runner, store, progress)
    return WidthSearch(graph, plan, options, choices, evaluator, workers).run()


def _in_memory(problem: Problem) -> Problem:
    """The same without files, which other machines may not have."""
    evaluation = problem.evaluation
    if evaluation is not None:
        images = tuple(dict(image) for image in evaluation.images)
        evaluation = replace(evaluation, images=images, labels=tuple(evaluation.labels))
    feeds = tuple(dict(feed) for feed in problem.feeds)
    seen = tuple(dict(feed) for feed in problem.quantization.feeds)
    quantization = replace(problem.quantization, feeds=seen)
    return Problem(quantization, problem.reference, feeds, evaluation)
