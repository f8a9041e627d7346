"""Functions of one tensor, softmax, and class maps."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from qcompile.exporter.scope import Scope
from qcompile.ops import ArgMax, Elu, HardSigmoid, Pointwise, Silu, Softmax, Threshold


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


def softmax(op: Softmax, scope: Scope) -> str:
    """Softmax."""
    return scope.node("Softmax", scope.real(), axis=op.axis)


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
