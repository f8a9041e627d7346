"""Functions of one tensor, softmax, and class maps."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from qcompile.exporter.scope import Scope
from qcompile.ops import (
    ArgMax,
    Elu,
    Gelu,
    HardSigmoid,
    Pointwise,
    Silu,
    Softmax,
    Steps,
    TernaryTanh,
    Threshold,
)


def same_name(op: Pointwise, scope: Scope) -> str:
    """A function that ONNX has under the same name, without attributes."""
    return scope.node(op.kind, scope.real())


def silu(op: Silu, scope: Scope) -> str:
    """x times Sigmoid(x): no operator of its own up to opset 23."""
    gate = scope.node("Sigmoid", scope.real(), part="gate")
    return scope.node("Mul", scope.real(), gate)


def hard_sigmoid(op: HardSigmoid, scope: Scope) -> str:
    """HardSigmoid."""
    return scope.node("HardSigmoid", scope.real(), alpha=op.alpha, beta=op.beta)


def elu(op: Elu, scope: Scope) -> str:
    """Elu."""
    return scope.node("Elu", scope.real(), alpha=op.alpha)


def ternary_tanh(op: TernaryTanh, scope: Scope) -> str:
    """The sum of two shifted Tanh, halved."""
    slope = scope.constant("slope", 2 * op.beta)
    steep = scope.node("Mul", scope.real(), slope, part="steep")
    parts = [
        scope.node("Tanh", scope.node(kind, steep, shift, part=part), part=f"{part}-tanh")
        for shift in (scope.constant("beta", op.beta),)
        for kind, part in (("Sub", "right"), ("Add", "left"))
    ]
    total = scope.node("Add", *parts, part="sum")
    return scope.node("Mul", total, scope.constant("half", 0.5))


def steps(op: Steps, scope: Scope) -> str:
    """Comparisons, each of which chooses between the value so far and the next."""
    result = scope.constant("value", op.values[0])
    for index, limit in enumerate(op.limits):
        at = scope.constant(f"limit{index}", limit)
        for kind, place in (("GreaterOrEqual", 2 * index + 1), ("Greater", 2 * index + 2)):
            passed = scope.node(kind, scope.real(), at, part=f"passed{place}")
            value = scope.constant(f"value{place}", op.values[place])
            last = place == 2 * len(op.limits)
            part = "" if last else f"step{place}"
            result = scope.node("Where", passed, value, result, part=part)
    return result


def softmax(op: Softmax, scope: Scope) -> str:
    """Softmax; masked elements are brought to a number whose exponential is 0."""
    x = scope.real()
    if len(op.inputs) == 1:
        return scope.node("Softmax", x, axis=op.axis)
    keeps = scope.graph.constants[op.inputs[1]] != 0
    mask = scope.constant("mask", keeps, "bool")
    never = scope.constant("never", np.float32(-1e30))
    soft = scope.node("Softmax", scope.node("Where", mask, x, never, part="masked"), axis=op.axis)
    if np.broadcast_to(keeps, scope.shape()).any(axis=op.axis).all():
        return soft
    # A row that is masked throughout is 0, not uniform.
    zero = scope.constant("zero", np.float32(0))
    return scope.node("Where", mask, soft, zero, part="rows")


def gelu(op: Gelu, scope: Scope) -> str:
    """GELU by its formula: an operator of its own since opset 20 only."""
    x = scope.real()
    if op.tanh:
        cube = scope.node("Mul", scope.node("Mul", x, x, part="square"), x, part="cube")
        factor = scope.constant("cubic", np.float32(0.044715))
        inner = scope.node("Add", x, scope.node("Mul", cube, factor, part="cubic"), part="inner")
        root = scope.constant("root", np.float32(math.sqrt(2 / math.pi)))
        gate = scope.node("Tanh", scope.node("Mul", inner, root, part="scaled"), part="gate")
    else:
        root = scope.constant("root", np.float32(math.sqrt(0.5)))
        gate = scope.node("Erf", scope.node("Mul", x, root, part="scaled"), part="gate")
    half = scope.constant("half", np.float32(0.5))
    open_ = scope.node("Add", gate, scope.constant("one", np.float32(1)), part="open")
    return scope.node("Mul", scope.node("Mul", x, half, part="half"), open_)


def arg_max(op: ArgMax, scope: Scope) -> str:
    """ArgMax."""
    return scope.node(
        "ArgMax",
        scope.real(),
        axis=op.axis,
        keepdims=int(op.keepdims),
        select_last_index=int(op.last),
    )


def threshold(op: Threshold, scope: Scope) -> str:
    """The class map is int64, as that of ArgMax."""
    limit = scope.constant("limit", np.float32(op.limit))
    above = scope.node("Greater", scope.real(), limit, part="above")
    return scope.node("Cast", above, to=TensorProto.INT64)
