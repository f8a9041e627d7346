"""The activation of a sum as ONNX nodes."""

from __future__ import annotations

import math

from qcompile.exporter.dialect import is_binary
from qcompile.exporter.scope import Scope
from qcompile.ops import RELU, Activation, SumOp


def emit_activation(scope: Scope, real: str) -> str:
    """y = clip(gain * leaky(z) + shift, low, high); nothing for what is the identity."""
    assert isinstance(scope.op, SumOp)
    activation = scope.op.activation
    rank = scope.kind.rank
    axis = scope.op.channel_axis(rank)
    if not (is_binary(scope.kind) and activation == RELU):
        # The sign of what a ReLU leaves over would be no information: it is that of the sum.
        real = _bend(scope, real, activation, axis)
    for operator, part, values, neutral in (
        ("Mul", "gain", activation.gain, 1.0),
        ("Add", "shift", activation.shift, 0.0),
    ):
        if values != (neutral,):
            vector = scope.by_channel(f"activation.{part}", values, axis, rank)
            real = scope.node(operator, real, vector, part=part)
    if activation.low == -math.inf and activation.high == math.inf:
        return real
    ends = [
        scope.constant(f"activation.{part}", value) if math.isfinite(value) else ""
        for part, value in (("low", activation.low), ("high", activation.high))
    ]
    return scope.node("Clip", real, *(ends if ends[1] else ends[:1]), part="clip")


def _bend(scope: Scope, real: str, activation: Activation, axis: int) -> str:
    slope = activation.slope
    if slope == (1.0,):
        return real
    if slope == (0.0,):
        return scope.node("Relu", real, part="relu")
    if len(slope) == 1:
        return scope.node("LeakyRelu", real, part="leaky_relu", alpha=slope[0])
    vector = scope.by_channel("activation.slope", slope, axis, scope.kind.rank)
    return scope.node("PRelu", real, vector, part="prelu")
