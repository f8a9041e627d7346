"""What pruning costs at several ratios: the table ratio, parameters, FLOPs, bytes, Dice, IoU."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qcompile.data_options import DiceOver
from qcompile.errors import QCompileError, UsageError
from qcompile.evaluate import Evaluation
from qcompile.hdl_options import HDL_DEFAULTS
from qcompile.options import CompileOptions, Target
from qcompile.passes.filter_importance import is_filtering
from qcompile.pipeline import compile_model
from qcompile.report.metrics import ClassScore
from qcompile.search.jobs import Json
from qcompile.search.local_runner import LocalRunner
from qcompile.sim.threads import cores

FLOAT, COMPILED = "float", "compiled"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One network of the sweep.

    Attributes:
        ratio: share of the filters that was removed.
        network: 'float', or 'compiled' with the widths asked for.
        filters: left in it.
        parameters: weights, biases and the like.
        flops: 2 for each multiply-accumulate, 5 for each element of a softmax.
        bytes: of the weights at their nominal width.
        dice: of each class, as the totals of a report have it.
        iou: intersection over union of each class, likewise.
    """

    ratio: float
    network: str
    filters: int
    parameters: int
    flops: int
    bytes: int
    dice: tuple[float, ...]
    iou: tuple[float, ...]

    @property
    def mean_dice(self) -> float:
        return sum(self.dice) / len(self.dice)

    @property
    def mean_iou(self) -> float:
        return sum(self.iou) / len(self.iou)


def sweep(
    model: Path,
    options: CompileOptions,
    ratios: Sequence[float],
    compiled: bool,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[SweepRow, ...]:
    """Prunes a network at every ratio and measures it, in parallel processes.

    Each row is that of a compilation of its own, which `qcompile MODEL --prune RATIO` repeats: the
    float rows with `--wbits 32 --abits 32`, the compiled ones with the widths of the options.

    Args:
        model: the ONNX file.
        options: everything but the ratio.
        ratios: 0 is always measured, as what the others are compared with.
        compiled: measure the compiled networks, too.
        progress: told of finished compilations.

    Raises:
        UsageError: there are no data, or a ratio is out of range.
        QCompileError: a compilation failed; the message says at which ratio.
    """
    if not options.has_evaluation:
        raise UsageError("sweep: needs --data, images with labels to measure Dice on")
    if options.budgeted:
        raise UsageError("sweep: takes widths, not budgets of them; give --wbits and --abits")
    wanted = sorted({0.0, *ratios})
    for ratio in wanted:
        if not 0 <= ratio < 1:
            raise UsageError(f"--ratios: {ratio:g} is no ratio; use 0 up to (but not) 1")
    fixed: dict[str, Any] = {"target": Target.SIM, "verify": False, **HDL_DEFAULTS}
    plain = replace(options, workers=1, **fixed)
    networks = (FLOAT, COMPILED) if compiled else (FLOAT,)
    jobs: dict[str, Json] = {
        f"{ratio:g} {network}": {"ratio": ratio, "network": network}
        for ratio in wanted
        for network in networks
    }
    workers = min(len(jobs), options.workers or cores())
    problem = (model, plain)
    rows: dict[str, SweepRow] = {}
    for name, result in LocalRunner(problem, measure, workers).run(jobs):
        if result is None:
            raise QCompileError(
                f"ratio {name}: its process died several times, probably for lack of memory; "
                f"use fewer --workers"
            )
        if "error" in result:
            raise QCompileError(f"ratio {name}: {result['error']}")
        dice, iou = tuple(result.pop("dice")), tuple(result.pop("iou"))
        rows[name] = SweepRow(**result, dice=dice, iou=iou)
        if progress is not None:
            progress("sweep", len(rows), len(jobs))
    return tuple(rows[name] for name in jobs)


def measure(problem: tuple[Path, CompileOptions], job: Json) -> Json:
    """One row, as plain values: what the jobs of a sweep do."""
    model, options = problem
    options = replace(options, prune=job["ratio"])
    if job["network"] == FLOAT:
        options = replace(options, wbits="32", abits="32", layers=(), inputs=())
    try:
        result = compile_model(model, options)
    except QCompileError as error:
        # Errors with fields of their own do not travel between processes.
        return {"error": str(error)}
    totals, evaluation = result.report.totals, result.report.evaluation
    assert evaluation is not None
    graph = result.float_graph
    scores = evaluation.quantized_scores
    return {
        "ratio": job["ratio"],
        "network": job["network"],
        "filters": sum(
            graph.types[op.output].shape[1] for op in graph.ops if is_filtering(graph, op)
        ),
        "parameters": totals.parameters,
        "flops": totals.flops,
        "bytes": totals.weight_bytes_nominal,
        "dice": [round(item.over(evaluation.over), 6) for item in scores],
        "iou": [round(_iou(item, evaluation), 6) for item in scores],
    }


def _iou(score: ClassScore, evaluation: Evaluation) -> float:
    if evaluation.over is DiceOver.CASE:
        return score.iou_case_mean
    return score.iou_pooled if evaluation.over is DiceOver.POOLED else score.iou_mean


def table(rows: Sequence[SweepRow]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table for people, FLOPs and parameters also as shares."""
    classes = len(rows[0].dice)
    head = ["ratio", "network", "filters", "parameters", "", "FLOPs", "", "bytes"]
    head += _columns(classes, "Dice", "IoU")
    whole = rows[0]
    cells = []
    for row in rows:
        scores = [value for pair in zip(row.dice, row.iou, strict=True) for value in pair]
        if classes > 1:
            scores += [row.mean_dice, row.mean_iou]
        cells.append(
            [
                f"{row.ratio:g}",
                row.network,
                f"{row.filters:,}",
                f"{row.parameters:,}",
                f"{row.parameters / max(1, whole.parameters):.1%}",
                f"{row.flops:,}",
                f"{row.flops / max(1, whole.flops):.1%}",
                f"{row.bytes:,}",
                *(f"{score:.4f}" for score in scores),
            ]
        )
    return head, cells


def _columns(classes: int, *kinds: str) -> list[str]:
    if classes == 1:
        return list(kinds)
    names = [*(str(label) for label in range(1, classes + 1)), "mean"]
    return [f"{kind} {name}" for name in names for kind in kinds]


def csv_text(rows: Sequence[SweepRow]) -> str:
    """The rows as CSV; one column for each class and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["ratio", "network", "filters", "parameters", "flops", "bytes"]
    labels = range(1, len(rows[0].dice) + 1)
    writer.writerow([*head, *(f"{kind}_{label}" for kind in ("dice", "iou") for label in labels)])
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in head), *row.dice, *row.iou])
    return text.getvalue()


def json_text(rows: Sequence[SweepRow], model: str) -> str:
    """The rows as JSON."""
    plain = [asdict(row) for row in rows]
    for row in plain:
        for kind in ("dice", "iou"):
            row[kind] = [None if math.isnan(value) else value for value in row[kind]]
    document = {"schema": "qcompile-sweep", "model": model, "rows": plain}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
