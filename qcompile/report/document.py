"""The report of one compilation: `report.json`, whose schema docs/report.md describes.

Nothing in it depends on when or where the compiler ran, so equal inputs give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qcompile.backends.c.footprint import Footprint
from qcompile.evaluate import Evaluation
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.plan_file import options_table
from qcompile.report.attention import AttentionMaps, attention_json
from qcompile.report.energy import EnergyReport
from qcompile.report.hardware import HardwareReport
from qcompile.report.histograms import LayerHistograms
from qcompile.report.layers import LayerRow
from qcompile.report.metrics import ClassScore
from qcompile.report.objects import ObjectScore
from qcompile.report.ternary import TernarySummary
from qcompile.report.trade_off import TradeOffPoint, WidthReason

SCHEMA = "qcompile-report"
SCHEMA_VERSION = 1
NOT_ASSURED = (
    "accuracy was not assured: no --calib was given, so the ranges of activations come from "
    "generated inputs"
)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the network. Dice: mean over classes of what `--dice-over` says.

    Attributes:
        flops: 2 for each multiply-accumulate, 5 for each element of a softmax.
        weight_bytes_nominal: constants at their nominal width, tables apart.
        weight_bytes_emitted: all `const` data of the emitted program; None if there is none.
        fp32_bytes: the parameters as float32.
        arena_bytes: working memory of the emitted program.
    """

    parameters: int
    macs: int
    bops: int
    fp32_bytes: int
    weight_bytes_nominal: int
    weight_bytes_emitted: int | None
    arena_bytes: int | None
    dice_float: float | None
    dice_quantized: float | None
    flops: int = 0

    @property
    def ratio_nominal(self) -> float | None:
        return _ratio(self.fp32_bytes, self.weight_bytes_nominal)

    @property
    def ratio_emitted(self) -> float | None:
        return _ratio(self.fp32_bytes, self.weight_bytes_emitted)

    @property
    def dice_difference(self) -> float | None:
        """Quantised minus float: negative where compilation costs Dice."""
        if self.dice_float is None or self.dice_quantized is None:
            return None
        return self.dice_quantized - self.dice_float


@dataclass(frozen=True, slots=True)
class Interface:
    """One input or output of the compiled network."""

    name: str
    shape: tuple[int, ...]
    element: str


@dataclass(frozen=True)
class Report:
    """Everything that is said about one compilation.

    Attributes:
        version: of qcompile.
        model: base name of the ONNX file.
        sha256: of the ONNX file.
        options: as in the plan, plain values.
        calibration: what ranges were found on: 'data', 'generated' or 'plan'.
        calibration_images: how many network inputs that were.
        verified: whether C and simulator agreed; None if not asked for.
        evaluation: Dice in detail, None without --data.
        details: further facts, e.g. the largest difference in a float island.
        hardware: of an accelerator; None for other targets.
        footprint: flash and RAM of a microcontroller; None without --mcu.
        histograms: operator name -> how its weights and its output spread; for `report.html` only.
        trade_off: the networks that a search compared; empty where none was made.
        width_reasons: why the chosen one has its widths; empty likewise.
        ternary: products, zeros and bytes of a network with ternary layers; None for others.
        attention: the maps of `--taps attention`; None without.
        energy: analytical, and what `--measure` measured; None where it was not computed.
    """

    version: str
    model: str
    sha256: str
    inputs: tuple[Interface, ...]
    outputs: tuple[Interface, ...]
    options: Mapping[str, Any]
    calibration: str
    calibration_images: int
    totals: Totals
    layers: tuple[LayerRow, ...]
    evaluation: Evaluation | None = None
    verified: bool | None = None
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    hardware: HardwareReport | None = None
    footprint: Footprint | None = None
    histograms: Mapping[str, LayerHistograms] = field(default_factory=dict)
    trade_off: tuple[TradeOffPoint, ...] = ()
    width_reasons: tuple[WidthReason, ...] = ()
    ternary: TernarySummary | None = None
    attention: AttentionMaps | None = None
    energy: EnergyReport | None = None

    def to_json(self) -> str:
        """The text of `report.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, in the order of the schema."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "qcompile": self.version,
            "model": {
                "name": self.model,
                "sha256": self.sha256,
                "inputs": [_interface(item) for item in self.inputs],
                "outputs": [_interface(item) for item in self.outputs],
            },
            "options": dict(self.options),
            "calibration": {"source": self.calibration, "images": self.calibration_images},
            "verified": self.verified,
            "warnings": list(self.warnings),
            "totals": _totals(self.totals),
            "dice": None if self.evaluation is None else _dice(self.evaluation),
            "layers": [_layer(row) for row in self.layers],
            "hardware": None if self.hardware is None else self.hardware.to_dict(),
            "footprint": None if self.footprint is None else self.footprint.to_dict(),
            "trade_off": [dataclasses.asdict(point) for point in self.trade_off],
            "width_reasons": [dataclasses.asdict(reason) for reason in self.width_reasons],
            "ternary": None if self.ternary is None else self.ternary.to_dict(),
            "energy": None if self.energy is None else self.energy.to_dict(),
            "attention": attention_json(self.attention),
            "details": dict(self.details),
        }


def build_report(
    *,
    version: str,
    model: str,
    sha256: str,
    options: CompileOptions,
    float_graph: Graph,
    integer_graph: Graph,
    layers: tuple[LayerRow, ...],
    calibration: str,
    calibration_images: int,
    weight_bytes_emitted: int | None = None,
    arena_bytes: int | None = None,
    evaluation: Evaluation | None = None,
    verified: bool | None = None,
    warnings: tuple[str, ...] = (),
    details: Mapping[str, Any] | None = None,
    hardware: HardwareReport | None = None,
    footprint: Footprint | None = None,
    histograms: Mapping[str, LayerHistograms] | None = None,
    trade_off: tuple[TradeOffPoint, ...] = (),
    width_reasons: tuple[WidthReason, ...] = (),
    ternary: TernarySummary | None = None,
    attention: AttentionMaps | None = None,
    energy: EnergyReport | None = None,
) -> Report:
    """Puts the totals together; arguments as the attributes of `Report` and `Totals`."""
    parameters = sum(int(data.size) for data in float_graph.constants.values())
    totals = Totals(
        parameters=parameters,
        macs=sum(row.macs for row in layers),
        bops=sum(row.bops for row in layers),
        fp32_bytes=4 * parameters,
        weight_bytes_nominal=sum(row.weight_bytes for row in layers),
        weight_bytes_emitted=weight_bytes_emitted,
        arena_bytes=arena_bytes,
        dice_float=None if evaluation is None else round(evaluation.dice_float, 6),
        dice_quantized=None if evaluation is None else round(evaluation.dice_quantized, 6),
        flops=sum(row.flops for row in layers),
    )
    if calibration == "generated" and NOT_ASSURED not in warnings:
        warnings = (NOT_ASSURED, *warnings)
    return Report(
        version=version,
        model=model,
        sha256=sha256,
        inputs=_interfaces(integer_graph, integer_graph.inputs),
        outputs=_interfaces(integer_graph, integer_graph.outputs),
        options=options_table(options),
        calibration=calibration,
        calibration_images=calibration_images,
        totals=totals,
        layers=layers,
        evaluation=evaluation,
        verified=verified,
        warnings=warnings,
        details=dict(details or {}),
        hardware=hardware,
        footprint=footprint,
        histograms=dict(histograms or {}),
        trade_off=trade_off,
        width_reasons=width_reasons,
        ternary=ternary,
        attention=attention,
        energy=energy,
    )


def _interfaces(graph: Graph, names: tuple[str, ...]) -> tuple[Interface, ...]:
    return tuple(
        Interface(name, graph.types[name].shape, str(graph.types[name].element.storage))
        for name in names
    )


def _interface(item: Interface) -> dict[str, Any]:
    return {"name": item.name, "shape": list(item.shape), "element": item.element}


def _ratio(whole: int, part: int | None) -> float | None:
    return round(whole / part, 3) if part else None


def _totals(totals: Totals) -> dict[str, Any]:
    difference = totals.dice_difference
    return {
        "dice_float": totals.dice_float,
        "dice_quantized": totals.dice_quantized,
        "dice_difference": None if difference is None else round(difference, 6),
        "parameters": totals.parameters,
        "macs": totals.macs,
        "flops": totals.flops,
        "bops": totals.bops,
        "fp32_bytes": totals.fp32_bytes,
        "weight_bytes_nominal": totals.weight_bytes_nominal,
        "weight_bytes_emitted": totals.weight_bytes_emitted,
        "ratio_nominal": totals.ratio_nominal,
        "ratio_emitted": totals.ratio_emitted,
        "arena_bytes": totals.arena_bytes,
    }


def _dice(evaluation: Evaluation) -> dict[str, Any]:
    tiling = evaluation.tiling
    return {
        "images": evaluation.images,
        "cases": list(evaluation.case_names) or None,
        "over": evaluation.over.value,
        "empty": evaluation.empty.value,
        "tiles": None
        if tiling.halo is None
        else {
            "halo": list(tiling.halo),
            "stride": list(tiling.stride),
            "exact": tiling.exact,
        },
        "classes": [
            {
                "label": real.label,
                "float": _score(real),
                "quantized": _score(quantized),
                "difference": _number(quantized.over(evaluation.over) - real.over(evaluation.over)),
            }
            for real, quantized in zip(
                evaluation.float_scores, evaluation.quantized_scores, strict=True
            )
        ],
        "objects": [
            {"label": real.label, "float": _objects(real), "quantized": _objects(quantized)}
            for real, quantized in zip(
                evaluation.float_objects, evaluation.quantized_objects, strict=True
            )
        ],
    }


def _score(score: ClassScore) -> dict[str, Any]:
    return {
        "mean": _number(score.mean),
        "case_mean": _number(score.case_mean) if score.cases else None,
        "pooled": _number(score.pooled),
        "iou_mean": _number(score.iou_mean),
        "iou_case_mean": _number(score.iou_case_mean) if score.cases else None,
        "iou_pooled": _number(score.iou_pooled),
        "per_image": [_number(value) for value in score.per_image],
        "per_case": [_number(value) for value in score.per_case] if score.cases else None,
    }


def _objects(score: ObjectScore) -> dict[str, Any]:
    return {
        "mean": _three(score.mean_f1, score.mean_dice, score.mean_hausdorff),
        "pooled": _three(score.pooled_f1, score.pooled_dice, score.pooled_hausdorff),
        "per_image": [
            {
                **_three(item.f1(score.empty), item.dice(score.empty), item.hausdorff(score.empty)),
                "found": item.found,
                "wanted": item.wanted,
                "right": item.right,
            }
            for item in score.images
        ],
    }


def _three(f1: float, dice: float, hausdorff: float) -> dict[str, float | None]:
    return {"f1": _number(f1), "dice": _number(dice), "hausdorff": _number(hausdorff)}


def _number(value: float) -> float | None:
    """None for what does not count."""
    return None if math.isnan(value) else round(value, 6)


def _layer(row: LayerRow) -> dict[str, Any]:
    fidelity = row.fidelity
    return {
        "name": row.name,
        "operator": row.operator,
        "value": row.value,
        "reads": list(row.reads),
        "inputs": [list(shape) for shape in row.inputs],
        "output": list(row.output),
        "weight_bits": row.weight_bits,
        "weight_levels": row.weight_levels,
        "weight_format": row.weight_format,
        "activation_bits": row.activation_bits,
        "activation_levels": row.activation_levels,
        "activation_format": row.activation_format,
        "accumulator_bits": row.accumulator_bits,
        "parameters": row.parameters,
        "macs": row.macs,
        "flops": row.flops,
        "bops": row.bops,
        "weight_bytes_nominal": row.weight_bytes,
        "const_bytes_emitted": row.const_bytes,
        "saturated": None if fidelity is None else fidelity.saturated,
        "sqnr_db": None if fidelity is None else fidelity.sqnr_db,
        "cosine": None if fidelity is None else fidelity.cosine,
        "max_error_lsb": None if fidelity is None else fidelity.max_error,
    }
