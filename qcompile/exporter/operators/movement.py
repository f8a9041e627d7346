"""Operators that copy values: Concat, Pad, Slice, Gather, MaskedFill, Transpose, Reshape,
DepthToSpace."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from qcompile.exporter.dialect import scale_of
from qcompile.exporter.scope import Scope
from qcompile.numerics import round_half_up
from qcompile.ops import (
    Concat,
    DepthToSpace,
    Gather,
    MaskedFill,
    Pad,
    PadMode,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.ops.code_limits import fill_code


def concat(op: Concat, scope: Scope) -> str:
    """Concat."""
    reals = [scope.real(index) for index in range(len(op.inputs))]
    return scope.node("Concat", *reals, axis=op.axis)


def pad(op: Pad, scope: Scope) -> str:
    """Pad; a constant lies on the grid of what it is added to."""
    sizes = scope.constant("pads", [*op.begins, *op.ends], "int64")
    operands = [scope.real(), sizes]
    if op.mode is PadMode.CONSTANT:
        value, kind = op.value, scope.kind
        if not kind.is_float and kind.quantization is not None:
            code = round_half_up(Fraction(value) / kind.quantization.exact())
            value = min(max(code, kind.integer.low), kind.integer.high) * scale_of(kind)
        dtype = "float32" if kind.is_float or kind.quantization is not None else "int64"
        operands.append(scope.constant("value", np.asarray(value), dtype))
    return scope.node("Pad", *operands, mode=op.mode.value)


def slice_(op: Slice, scope: Scope) -> str:
    """Only the axes that are cut are named."""
    shape = scope.shape()
    ends = []
    for start, size, step in zip(op.starts, op.sizes, op.steps, strict=True):
        end = start + size * step
        # Below 0 an end would count from the back: the lowest int64 means 'to the beginning'.
        ends.append(end if end >= 0 else -(2**63))
    cut = [
        axis
        for axis, size in enumerate(shape)
        if (op.starts[axis], op.sizes[axis], op.steps[axis]) != (0, size, 1)
    ] or [0]
    vectors = [
        scope.constant(part, [values[axis] for axis in cut], "int64")
        for part, values in (
            ("starts", op.starts),
            ("ends", ends),
            ("axes", range(len(shape))),
            ("steps", op.steps),
        )
    ]
    return scope.node("Slice", scope.real(), *vectors)


def gather(op: Gather, scope: Scope) -> str:
    """Gather."""
    indices = scope.constant("indices", op.indices, "int64")
    return scope.node("Gather", scope.real(), indices, axis=op.axis)


def masked_fill(op: MaskedFill, scope: Scope) -> str:
    """Where; the constant lies on the grid of what it stands among."""
    mask = scope.constant("mask", scope.graph.constants[op.inputs[1]] != 0, "bool")
    value, kind = op.value, scope.kind
    if not kind.is_float and kind.quantization is not None:
        value = fill_code(op, kind) * scale_of(kind)
    return scope.node("Where", mask, scope.real(), scope.constant("value", np.float32(value)))


def transpose(op: Transpose, scope: Scope) -> str:
    """Transpose."""
    return scope.node("Transpose", scope.real(), perm=list(op.permutation))


def reshape(op: Reshape, scope: Scope) -> str:
    """Reshape."""
    return scope.node("Reshape", scope.real(), scope.constant("shape", op.shape, "int64"))


def depth_to_space(op: DepthToSpace, scope: Scope) -> str:
    """DepthToSpace."""
    mode = "CRD" if op.column_major else "DCR"
    return scope.node("DepthToSpace", scope.real(), blocksize=op.block, mode=mode)
