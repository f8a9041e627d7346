"""What a run decided, as the plan that is written."""

from __future__ import annotations

import dataclasses

from qcompile.graph import Graph
from qcompile.plan import LayerPlan, Plan


def resolved_plan(graph: Graph, plan: Plan, scales: bool = True) -> Plan:
    """The plan with the signs, and the scales, that a quantized graph came out with.

    Operators that quantization added (rescales) have no entry: they follow from the others.

    Args:
        graph: the quantized graph.
        plan: what it was made by.
        scales: False for a network whose channels were equalised: its scales mean nothing without
            the factors, which come from the images again, as do these scales.
    """

    def resolved(layer: LayerPlan, value: str) -> LayerPlan:
        kind = graph.types[value]
        if kind.quantization is None:
            return layer
        signed = kind.integer.signed
        scale = kind.quantization.scale[0] if scales else layer.scale
        return dataclasses.replace(layer, scale=scale, signed=signed)

    return Plan(
        {name: resolved(layer, name) for name, layer in plan.inputs.items()},
        {name: resolved(layer, graph.by_name[name].output) for name, layer in plan.layers.items()},
    )
