"""What `--prune` and its companions mean for one network, and what pruning did to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.errors import UsageError
from qcompile.evaluate import Evaluation
from qcompile.graph import Graph
from qcompile.hdl_options import HDL_DEFAULTS
from qcompile.importance_file import read_importance
from qcompile.importer import batch_norm_scales
from qcompile.options import CompileOptions, Target
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import Dump, Pass, run_passes
from qcompile.passes.filter_importance import Importance, Magnitude, NodeScores, is_filtering
from qcompile.passes.move_transposes import MoveTransposes
from qcompile.passes.prune_costs import PruneCosts
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.reader_errors import Feeds, GivenScores, reader_errors
from qcompile.passes.refit_readers import RefitReaders, peak_bytes
from qcompile.prune_options import AUTO, PruneMethod, parse_amount
from qcompile.result import CompileResult

MOST_IMAGES = 16
"""Calibration images that scores and refitting use."""
MOST_BYTES = 3 << 30
"""Of all their values at a time: of very large images, fewer are used."""
STEPS = 200
"""The search for a ratio is as fine as one part in this many."""
MOST_STEPS = 190
"""It ends at 95 per cent."""


Judge = Callable[[Graph, Evaluation | None], Evaluation | None]
"""Dice of the network before pruning (as in the evaluation given, if any) and of a pruned one."""
Step = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Pruner:
    """What prunes a network: the choice of filters, and the images to refit on, if any."""

    filters: PruneFilters
    refit: Feeds = ()
    seed: int = 0

    def passes(self, graph: Graph) -> tuple[Pass, ...]:
        """Of the simplified network `graph`."""
        if not self.refit:
            return (self.filters,)
        removed = frozenset().union(*(item.channels for item in self.filters.choose(graph)))
        if not removed:
            return (self.filters,)
        return (self.filters, RefitReaders(graph, removed, self.refit, self.seed))

    def at(self, ratio: float) -> Pruner:
        """The same with another ratio."""
        return replace(self, filters=replace(self.filters, ratio=ratio))


def make_pruner(
    options: CompileOptions,
    model: Path,
    imported: Graph,
    simplified: Graph,
    feeds: Callable[[], Feeds],
    step: Step | None = None,
) -> Pruner:
    """What prunes as the options say; with `--prune auto` its ratio is 0.

    Args:
        options: what to remove.
        model: the ONNX file, which knows the trained scales of batch norms.
        imported: the network as imported, whose operators are its nodes.
        simplified: the network that is pruned.
        feeds: gives the calibration images as inputs of the float network.
        step: told of (done, total) images.

    Raises:
        UsageError: the file of scores is wrong, or no batch norm is left.
    """
    budgets = {
        name: None if text is None else parse_amount(text, f"--prune-{name}")
        for name, text in (("flops", options.prune_flops), ("bytes", options.prune_bytes))
    }
    bits: dict[str, int] = {}
    if budgets["bytes"] is not None:
        for name, layer in assign_formats(simplified, options).layers.items():
            if layer.weights is not None:
                bits[name] = layer.weights.bits
    images: Feeds = ()
    if options.prune_refit or options.prune_method is PruneMethod.ERROR:
        images = _spread(feeds(), min(MOST_IMAGES, MOST_BYTES // peak_bytes(simplified)))
    importance: Importance
    if options.prune_method is PruneMethod.ERROR:
        importance = GivenScores(reader_errors(simplified, images, options.seed, step))
    else:
        importance = _importance(options, model, imported)
    filters = PruneFilters(
        0.0 if isinstance(options.prune, str) else options.prune,
        importance,
        options.prune_scope,
        options.prune_multiple,
        options.prune_exclude,
        options.prune_constants,
        budgets["flops"],
        budgets["bytes"],
        bits,
    )
    return Pruner(filters, images if options.prune_refit else (), options.seed)


def _spread(feeds: Feeds, most: int) -> Feeds:
    """At most `most` of them, evenly over all."""
    count = max(1, min(most, len(feeds)))
    return [feeds[index * len(feeds) // count] for index in range(count)]


def _importance(options: CompileOptions, model: Path, imported: Graph) -> Importance:
    method = options.prune_method
    if method in (PruneMethod.L1, PruneMethod.L2):
        return Magnitude(method)
    if method is PruneMethod.TAYLOR:
        raise UsageError(
            "--prune-method taylor: the compiler computes no gradients; give the file that "
            "'qcompile importance' writes as --prune-importance"
        )
    origin = MoveTransposes().run(imported)
    if options.prune_importance is not None:
        scores = read_importance(options.prune_importance)
        return NodeScores(origin, scores, f"--prune-importance {options.prune_importance.name}")
    scales = batch_norm_scales(model)
    scores = {name: np.abs(scale) for name, scale in scales.items() if name in origin.by_name}
    if not scores:
        raise UsageError(
            "--prune-method bn: the model has no batch norm of its own (exporters fold them into "
            "convolutions); use error, l1 or l2, or give scores with --prune-importance"
        )
    return NodeScores(origin, scores, "--prune-method bn")


@dataclass(frozen=True, slots=True)
class Trial:
    """One ratio that was tried.

    Attributes:
        ratio: of filters.
        network: 'float' for the pruned network in float, 'compiled' for what comes out at the end.
        dice: its mean Dice.
        drop: how much less that is than the Dice of the network before pruning.
        holds: whether that is at most what --max-dice-drop allows.
    """

    ratio: float
    network: str
    dice: float
    drop: float
    holds: bool


def largest_ratio(
    measure: Callable[[float], Trial], below: float = 1.0, step: Step | None = None
) -> tuple[Trial, ...]:
    """Bisection for the largest ratio that holds, taking it that drops rise with the ratio.

    Args:
        measure: tries one ratio.
        below: a ratio known not to hold.
        step: told of (done, total) tries.

    Returns:
        What was tried, in order; the largest ratio that held is the answer, or 0 if none did.
    """
    low, high = 0, min(MOST_STEPS + 1, round(below * STEPS))
    trials: list[Trial] = []
    while low + 1 < high:
        middle = (low + high) // 2
        trials.append(measure(middle / STEPS))
        if step is not None:
            step(len(trials), len(trials) + (high - low - 1).bit_length() - 1)
        if trials[-1].holds:
            low = middle
        else:
            high = middle
    return tuple(trials)


def best_ratio(trials: Sequence[Trial]) -> float:
    """The largest ratio that held; 0 if none did."""
    return max((trial.ratio for trial in trials if trial.holds), default=0.0)


@dataclass(frozen=True)
class Compression:
    """A pruned network, the options with the ratio that was taken, and how it was found."""

    graph: Graph
    options: CompileOptions
    trials: tuple[Trial, ...] = ()


def compress(
    pruner: Pruner,
    graph: Graph,
    options: CompileOptions,
    judge: Judge,
    step: Step | None = None,
    dump: Dump | None = None,
) -> Compression:
    """Prunes, and with `--prune auto` looks for the ratio first.

    Args:
        pruner: from `make_pruner`.
        graph: the simplified network.
        options: their `prune` may be `auto`.
        judge: measures a pruned network in float.
        step: told of (done, total) tries.
        dump: told of the pruned graph.
    """
    if options.prune != AUTO:
        return Compression(run_passes(graph, pruner.passes(graph), dump), options)
    allowed = options.max_dice_drop or 0.0

    known: Evaluation | None = None

    def measure(ratio: float) -> Trial:
        nonlocal known
        known = judge(run_passes(graph, pruner.at(ratio).passes(graph)), known)
        assert known is not None  # the options say that there are data
        return trial(ratio, "float", known, allowed)

    trials = largest_ratio(measure, step=step)
    ratio = best_ratio(trials)
    pruned = run_passes(graph, pruner.at(ratio).passes(graph), dump)
    return Compression(pruned, replace(options, prune=ratio), trials)


def trial(ratio: float, network: str, evaluation: Evaluation, allowed: float) -> Trial:
    """What a measurement says of a ratio; drops are compared as the report rounds them."""
    drop = round(evaluation.dice_float, 6) - round(evaluation.dice_quantized, 6)
    return Trial(ratio, network, evaluation.dice_quantized, drop, drop <= allowed)


def keep_gate(
    options: CompileOptions,
    result: CompileResult,
    try_quickly: Callable[[CompileOptions], CompileResult],
    compile_again: Callable[[CompileOptions], CompileResult],
    step: Step,
) -> CompileResult:
    """`result` if it keeps --max-dice-drop, else that of the largest smaller ratio that does.

    The ratio of `result` was found on the network in float. Where the compiled one loses more than
    allowed, the search goes on below it, each ratio compiled for the simulator alone.

    Args:
        options: with `prune` being `auto`.
        result: compiled with the ratio that holds in float.
        try_quickly: compiles for a measurement.
        compile_again: compiles for good.
        step: told of (done, total) tries.
    """
    found = _ratio(result)
    tried = result.report.details["pruning"].get("trials", [])
    trials = [_compiled(result, options)]
    if found > 0 and not trials[0].holds:

        def measure(ratio: float) -> Trial:
            plain: dict[str, Any] = {"target": Target.SIM, "verify": False, **HDL_DEFAULTS}
            return _compiled(try_quickly(replace(options, prune=ratio, **plain)), options)

        trials += largest_ratio(measure, found, step)
        result = compile_again(replace(options, prune=best_ratio(trials)))
    unpruned = pruning_summary(result.float_graph, result.float_graph)
    pruning = dict(result.report.details.get("pruning", unpruned))
    pruning["trials"] = [*tried, *map(_plain, trials)]
    details = {**result.report.details, "pruning": pruning}
    return replace(result, report=replace(result.report, details=details))


def _compiled(result: CompileResult, options: CompileOptions) -> Trial:
    assert result.report.evaluation is not None
    assert options.max_dice_drop is not None
    return trial(_ratio(result), "compiled", result.report.evaluation, options.max_dice_drop)


def _ratio(result: CompileResult) -> float:
    assert isinstance(result.options.prune, float)
    return result.options.prune


def pruning_summary(before: Graph, after: Graph, trials: Sequence[Trial] = ()) -> dict[str, Any]:
    """What pruning did, as plain values for the report.

    Args:
        before: the simplified network.
        after: the pruned one.
        trials: of the search for a ratio.
    """
    filters = {
        op.name: [before.types[op.output].shape[1], after.types[op.output].shape[1]]
        for op in before.ops
        if is_filtering(before, op) and op.output in after.types
    }
    result: dict[str, Any] = {
        "filters": filters,
        "filters_total": [sum(pair[which] for pair in filters.values()) for which in (0, 1)],
        "parameters": [parameter_count(graph) for graph in (before, after)],
        "flops": [PruneCosts(graph).flops({}) for graph in (before, after)],
    }
    if trials:
        result["trials"] = [_plain(item) for item in trials]
    return result


def _plain(item: Trial) -> dict[str, Any]:
    return {
        "ratio": item.ratio,
        "network": item.network,
        "dice": round(item.dice, 6),
        "drop": round(item.drop, 6),
        "holds": item.holds,
    }


def parameter_count(graph: Graph) -> int:
    """Elements of all constants."""
    return sum(int(data.size) for data in graph.constants.values())
