"""The totals and the Dice of a report as lines of text, for the terminal and `report.md`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qcompile.data_options import DiceOver, EmptyDice
from qcompile.report.columns import NOTHING, count_text
from qcompile.report.document import Report, Totals


def totals_lines(totals: Totals) -> list[tuple[str, str]]:
    """(what, how much) for everything that is counted."""
    lines = [
        ("parameters", f"{totals.parameters:,}"),
        ("multiply-accumulates", f"{totals.macs:,}"),
        ("FLOPs of the float network", f"{totals.flops:,}"),
        ("bit operations", count_text(totals.bops)),
        ("weights, float32", f"{totals.fp32_bytes:,} bytes"),
        (
            "weights, nominal",
            f"{totals.weight_bytes_nominal:,} bytes{_smaller(totals.ratio_nominal)}",
        ),
    ]
    if totals.weight_bytes_emitted is not None:
        lines.append(
            (
                "constants, emitted",
                f"{totals.weight_bytes_emitted:,} bytes{_smaller(totals.ratio_emitted)}",
            )
        )
    if totals.arena_bytes is not None:
        lines.append(("arena", f"{totals.arena_bytes:,} bytes"))
    return lines


def _smaller(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.1f} times smaller)"


DICE_HEAD = ("Dice", "float", "quantised", "difference", "pooled float", "pooled quantised")


def dice_rows(report: Report) -> list[tuple[str, ...]]:
    """For each class Dice over images, over cases and IoU; for several classes the mean that the
    totals have; then single objects. Empty without evaluation."""
    evaluation = report.evaluation
    if evaluation is None:
        return []
    pairs = list(zip(evaluation.float_scores, evaluation.quantized_scores, strict=True))
    rows = [_row(f"class {a.label}", a.mean, b.mean, a.pooled, b.pooled) for a, b in pairs]
    if evaluation.case_names:
        rows += [_row(f"class {a.label}, cases", a.case_mean, b.case_mean) for a, b in pairs]
    if len(pairs) > 1:
        what = {DiceOver.CASE: "mean, cases", DiceOver.POOLED: "mean, pooled"}
        title = what.get(evaluation.over, "mean")
        rows.append(_row(title, evaluation.dice_float, evaluation.dice_quantized))
    rows += [
        _row(f"IoU, class {a.label}", a.iou_mean, b.iou_mean, a.iou_pooled, b.iou_pooled)
        for a, b in pairs
    ]
    for a, b in zip(evaluation.float_objects, evaluation.quantized_objects, strict=True):
        title = f"objects {a.label}"
        rows.append(_row(f"{title}, F1", a.mean_f1, b.mean_f1, a.pooled_f1, b.pooled_f1))
        rows.append(_row(f"{title}, Dice", a.mean_dice, b.mean_dice, a.pooled_dice, b.pooled_dice))
        distances = a.mean_hausdorff, b.mean_hausdorff, a.pooled_hausdorff, b.pooled_hausdorff
        rows.append(_row(f"{title}, Hausdorff", *distances, digits=2))
    return rows


def _row(
    title: str,
    before: float,
    after: float,
    pooled_before: float = math.nan,
    pooled_after: float = math.nan,
    digits: int = 4,
) -> tuple[str, ...]:
    def text(value: float, sign: str = "") -> str:
        return NOTHING if math.isnan(value) else f"{value:{sign}.{digits}f}"

    return (
        title,
        text(before),
        text(after),
        text(after - before, "+"),
        text(pooled_before),
        text(pooled_after),
    )


_OVER = {DiceOver.CASE: "cases", DiceOver.POOLED: "all pixels together"}
_EMPTY = {
    EmptyDice.ONE: "images without a class, in mask and prediction, count 1",
    EmptyDice.ZERO: "images without a class, in mask and prediction, count 0",
    EmptyDice.SKIP: "images whose mask lacks a class do not count for it",
}


def dice_text(report: Report) -> str:
    """One line on what the means are of; empty without evaluation."""
    evaluation = report.evaluation
    if evaluation is None:
        return ""
    count = evaluation.images
    what = f"means over {count} image{'' if count == 1 else 's'}"
    if evaluation.case_names:
        cases = len(evaluation.case_names)
        what += f" (slices) of {cases} case{'' if cases == 1 else 's'}"
    text = f"{what}; {_EMPTY[evaluation.empty]}"
    if evaluation.over is not DiceOver.IMAGE:
        text += "; totals and gates: " + _OVER[evaluation.over]
    halo = evaluation.tiling.halo
    if halo is not None:
        exact = "equal to whole images" if evaluation.tiling.exact else "less than the network sees"
        text += f"; tiles with a halo of {'x'.join(map(str, halo))} pixels ({exact})"
    return text


_TARGETS = {
    "c": "C",
    "hdl": "hardware",
    "qdq": "the ONNX model",
    "qcdq": "the ONNX model",
    "qonnx": "the ONNX model",
}


def verification_text(report: Report) -> str:
    """One line on `--verify`."""
    what = _TARGETS.get(str(report.options.get("target")), "the network file")
    if report.verified is None:
        return f"not verified (--verify compares {what} with the simulator)"
    if not report.verified:
        return f"VERIFICATION FAILED: {what} and simulator differ"
    details = report.details
    if "onnx_codes" in details:
        return (
            f"verified in onnxruntime: each operator by itself gives the simulator's codes, with "
            f"{details['onnx_codes_one_step_off']:,} of {details['onnx_codes']:,} one step off "
            f"(docs/onnx-export.md); {_whole_model(details)}"
        )
    difference = details.get("float_largest_difference")
    if difference is None:
        return f"verified: {what} and simulator agree in every element"
    return (
        f"verified: {what} and simulator agree in every integer; floats differ by at most "
        f"{difference:.2g}, relatively (limit {report.details.get('float_limit')})"
    )


def _whole_model(details: Mapping[str, Any]) -> str:
    """How much of the outputs of a whole ONNX model differs."""
    if "onnx_classes" in details:
        differing, total = details["onnx_classes_differing"], details["onnx_classes"]
        return f"the whole model's class maps differ in {differing:,} of {total:,} pixels"
    differing, total = details["onnx_output_codes_differing"], details["onnx_output_codes"]
    steps = details["onnx_output_largest_steps"]
    return f"{differing:,} of {total:,} codes of the whole model's output differ, by up to {steps}"


def calibration_text(report: Report) -> str:
    """One line on where the ranges come from."""
    source = {
        "data": f"from {report.calibration_images} calibration inputs",
        "generated": f"from {report.calibration_images} generated inputs",
    }.get(report.calibration, "from the plan (or not needed)")
    return f"activation ranges {source}"
