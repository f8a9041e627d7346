"""The totals and the Dice of a report as lines of text, for the terminal and `report.md`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcompile.report.columns import NOTHING, count_text
from qcompile.report.document import Report, Totals


def totals_lines(totals: Totals) -> list[tuple[str, str]]:
    """(what, how much) for everything that is counted."""
    lines = [
        ("parameters", f"{totals.parameters:,}"),
        ("multiply-accumulates", f"{totals.macs:,}"),
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
    """A row for each class and, for several classes, their mean; empty without evaluation."""
    evaluation = report.evaluation
    if evaluation is None:
        return []
    rows: list[tuple[str, ...]] = []
    for real, quantized in zip(evaluation.float_scores, evaluation.quantized_scores, strict=True):
        rows.append(
            (
                f"class {real.label}",
                f"{real.mean:.4f}",
                f"{quantized.mean:.4f}",
                f"{quantized.mean - real.mean:+.4f}",
                f"{real.pooled:.4f}",
                f"{quantized.pooled:.4f}",
            )
        )
    if len(rows) > 1:
        rows.append(
            (
                "mean",
                f"{evaluation.dice_float:.4f}",
                f"{evaluation.dice_quantized:.4f}",
                f"{-evaluation.drop:+.4f}",
                NOTHING,
                NOTHING,
            )
        )
    return rows


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
