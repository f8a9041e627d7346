"""Plans as plain JSON: what travels to workers and what measured results are stored under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcompile.fixed_point import parse_q_format
from qcompile.plan import Format, LayerPlan, Plan, Quantizer

Json = dict[str, Any]


def plan_to_json(plan: Plan) -> Json:
    """A form with nothing but strings, numbers, lists and dictionaries."""
    return {"inputs": _layers(plan.inputs), "layers": _layers(plan.layers)}


def plan_from_json(document: Json) -> Plan:
    """The inverse of `plan_to_json`."""
    return Plan(
        {name: _layer(entry) for name, entry in document["inputs"].items()},
        {name: _layer(entry) for name, entry in document["layers"].items()},
    )


def _layers(layers: Mapping[str, LayerPlan]) -> Json:
    return {
        name: {
            "output": _format_text(layer.output),
            "weights": None if layer.weights is None else _format_text(layer.weights),
            "scale": layer.scale,
            "signed": layer.signed,
        }
        for name, layer in layers.items()
    }


def _layer(entry: Json) -> LayerPlan:
    weights = entry["weights"]
    return LayerPlan(
        _format(entry["output"]),
        None if weights is None else _format(weights),
        entry["scale"],
        entry["signed"],
    )


def _format_text(chosen: Format) -> list[Any]:
    return [chosen.bits, chosen.quantizer.value, None if chosen.q is None else str(chosen.q)]


def _format(entry: list[Any]) -> Format:
    bits, quantizer, q = entry
    return Format(int(bits), Quantizer(quantizer), None if q is None else parse_q_format(q, "plan"))
