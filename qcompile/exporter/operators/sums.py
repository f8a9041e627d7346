"""Conv, ConvTranspose, MatMul, and sums and products element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.exporter.dialect import scale_of
from qcompile.exporter.scope import Scope
from qcompile.ops import Add, Affine, BatchMatMul, Conv, ConvTranspose, Div, MatMul, Mul, Rescale


def conv(op: Conv, scope: Scope) -> str:
    """Conv."""
    return scope.node(
        "Conv",
        *_operands(scope),
        kernel_shape=list(scope.shape(1)[2:]),
        strides=list(op.strides),
        pads=[*op.pads_begin, *op.pads_end],
        dilations=list(op.dilations),
        group=op.groups,
    )


def conv_transpose(op: ConvTranspose, scope: Scope) -> str:
    """ConvTranspose; where the output is longer than its reach, a Pad behind it."""
    # Output padding is that much less to cut off at the end.
    cuts = [*op.pads_begin]
    cuts += [pad - extra for pad, extra in zip(op.pads_end, op.output_padding, strict=True)]
    attributes: dict[str, Any] = {
        "kernel_shape": list(scope.shape(1)[2:]),
        "strides": list(op.strides),
        "pads": [max(0, cut) for cut in cuts],
        "dilations": list(op.dilations),
        "group": op.groups,
    }
    if min(cuts) >= 0:
        return scope.node("ConvTranspose", *_operands(scope), **attributes)
    # Positions beyond the reach of the kernel have the bias alone.
    x = scope.node("ConvTranspose", scope.real(), scope.weights(), **attributes)
    longer = [max(0, -cut) for cut in cuts]
    half = len(longer) // 2
    sizes = scope.constant("extension", [0, 0, *longer[:half], 0, 0, *longer[half:]], "int64")
    x = scope.node("Pad", x, sizes, part="extension")
    bias = scope.parameter(2)
    if bias is None:
        return x
    vector = scope.by_channel("bias", bias.tolist(), 1, scope.kind.rank)
    return scope.node("Add", x, vector, part="bias")


def matmul(op: MatMul, scope: Scope) -> str:
    """MatMul, or Gemm where that is the same."""
    bias = scope.bias()
    if len(scope.shape()) == 2 and bias is not None:
        return scope.node("Gemm", scope.real(), scope.weights(), bias)
    product = scope.node("MatMul", scope.real(), scope.weights())
    return product if bias is None else scope.node("Add", product, bias, part="bias")


def batch_matmul(op: BatchMatMul, scope: Scope) -> str:
    """MatMul of two computed tensors."""
    return scope.node("MatMul", scope.real(0), scope.real(1))


def _operands(scope: Scope) -> list[str]:
    bias = scope.bias()
    operands = [scope.real(), scope.weights()]
    return operands if bias is None else [*operands, bias]


def affine(op: Affine, scope: Scope) -> str:
    """Mul and Add by channel."""
    rank, parameters = scope.kind.rank, [scope.parameter(1), scope.parameter(2)]
    result = scope.real()
    for operator, part, data in zip(("Mul", "Add"), ("", "shift"), parameters, strict=True):
        if data is not None:
            vector = scope.by_channel(part or "factor", data.tolist(), 1, rank)
            result = scope.node(operator, result, vector, part=part)
    return result


def rescale(op: Rescale, scope: Scope) -> str:
    """Nothing but the quantizer (or activation) behind it."""
    return scope.real()


def add(op: Add, scope: Scope) -> str:
    """The weights are 1 and -1 in some order, or both alike (they are integers after lowering)."""
    first, second = scope.real(0), scope.real(1)
    match op.weights:
        case (1, 1):
            return scope.node("Add", first, second)
        case (1, -1):
            return scope.node("Sub", first, second)
        case (-1, 1):
            return scope.node("Sub", second, first)
        case _:
            return scope.node("Neg", scope.node("Add", first, second, part="sum"))


def mul(op: Mul, scope: Scope) -> str:
    """Mul."""
    return scope.node("Mul", scope.real(0), scope.real(1))


def div(op: Div, scope: Scope) -> str:
    """A divisor of code 0 counts as code 1 (docs/arithmetic.md)."""
    divisor, kind = scope.real(1), scope.input_type(1)
    if not kind.is_float and kind.codes.low <= 0 <= kind.codes.high:
        zero = scope.constant("zero", np.float32(0))
        one = scope.constant("one", np.float32(scale_of(kind)))
        is_zero = scope.node("Equal", divisor, zero, part="is_zero")
        divisor = scope.node("Where", is_zero, one, divisor, part="divisor")
    return scope.node("Div", scope.real(0), divisor)
