"""Which values of a float graph are never negative, whatever the input: they need no sign bit."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.boundary import InputKind, InputSpec
from qcompile.graph import Graph, Op
from qcompile.ops import (
    MOVEMENT,
    Add,
    AveragePool,
    Div,
    Exp,
    HardSigmoid,
    LinearResize,
    Mul,
    Pad,
    ReduceMean,
    Rescale,
    Sigmoid,
    Softmax,
    Softplus,
    SumOp,
)
from qcompile.ops.code_limits import moved_inputs
from qcompile.passes.calibrate import Calibration
from qcompile.plan import Plan

ALWAYS_POSITIVE: tuple[type[Op], ...] = (Sigmoid, HardSigmoid, Exp, Softplus, Softmax)
KEEPS_SIGN: tuple[type[Op], ...] = (AveragePool, ReduceMean, LinearResize, Mul, Div, Rescale)


def nonnegative_values(
    graph: Graph, plan: Plan, inputs: Mapping[str, InputSpec], calibration: Calibration
) -> frozenset[str]:
    """Names of all inputs and activations without negative elements; a `signed` in the plan wins.

    Float inputs count by what calibration saw of them.
    """
    found: set[str] = set()
    for name, spec in inputs.items():
        if spec.kind is InputKind.UINT8:
            positive = float(spec.pixel_values().min()) >= 0
        elif (signed := plan.inputs[name].signed) is not None:
            positive = not signed
        else:
            statistics = calibration.values.get(name)
            positive = statistics is not None and statistics.low >= 0
        if positive:
            found.add(name)
    for op in graph.ops:
        layer = plan.layers.get(op.name)
        if layer is not None and layer.signed is not None:
            positive = not layer.signed
        else:
            positive = _is_nonnegative(graph, op, found)
        if positive:
            found.add(op.output)
    return frozenset(found)


def _is_nonnegative(graph: Graph, op: Op, found: set[str]) -> bool:
    inputs = all(
        value in found or (graph.is_constant(value) and float(graph.constants[value].min()) >= 0)
        for value in moved_inputs(op)
    )
    if isinstance(op, ALWAYS_POSITIVE):
        return True
    if isinstance(op, SumOp):
        is_sum = isinstance(op, Add) and op.weights == (1, 1)
        is_square = isinstance(op, Mul) and op.inputs[0] == op.inputs[1]
        kept = is_square or (inputs and (is_sum or isinstance(op, KEEPS_SIGN)))
        return op.activation.is_nonnegative or (kept and op.activation.keeps_nonnegative)
    if isinstance(op, Pad):
        return inputs and op.value >= 0
    return isinstance(op, MOVEMENT) and inputs
