"""Add, Sub, Mul, Div, Reciprocal, Sum and Pow: of computed tensors, or with constants.

A constant of one number, or of one number a channel, makes an `Affine`; any other constant stays an
operand of `Add` or `Mul`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.masks import emit_masked
from qcompile.importer.operators.norm import emit_affine
from qcompile.ops.add import Add
from qcompile.ops.div import Div
from qcompile.ops.mul import Mul
from qcompile.ops.sqrt import Sqrt
from qcompile.types import Array, Shape

MASKED = -1e4
"""What is this low has no weight in a softmax (minus infinity, -1e9, float32's minimum, -1e4)."""

MAX_CHANNELS = 1 << 20
"""More than this is no channel axis: one number for all of them must stay one number."""


class Side(enum.Enum):
    """Where the constant of a binary operator stands."""

    LEFT = enum.auto()
    RIGHT = enum.auto()


@dataclass(frozen=True, slots=True)
class Mixed:
    """A binary operator with one constant: the computed value, the constant, and its name."""

    x: str
    constant: Array
    name: str
    side: Side


def convert_add(node: Node, builder: Builder) -> None:
    """Add."""
    mixed = _mixed(node, builder)
    if mixed is None:
        _emit_add(node, builder, _both(node, builder), (1, 1))
        return
    if _is_mask(mixed.constant):
        _add_mask(node, builder, mixed)
        return
    vector = _vector(mixed.constant, builder.shape(mixed.x))
    if vector is not None:
        emit_affine(node, builder, mixed.x, np.ones_like(vector), vector)
        return
    other = _operand(node, builder, mixed)
    _emit_add(node, builder, (mixed.x, other), (1, 1))


def convert_sub(node: Node, builder: Builder) -> None:
    """Sub: a sum with weights 1 and -1."""
    mixed = _mixed(node, builder)
    if mixed is None:
        _emit_add(node, builder, _both(node, builder), (1, -1))
        return
    vector = _vector(mixed.constant, builder.shape(mixed.x))
    left = mixed.side is Side.LEFT
    if vector is not None:
        ones = np.ones_like(vector)
        emit_affine(node, builder, mixed.x, -ones if left else ones, vector if left else -vector)
        return
    other = _operand(node, builder, mixed)
    _emit_add(node, builder, (other, mixed.x) if left else (mixed.x, other), (1, -1))


def convert_mul(node: Node, builder: Builder) -> None:
    """Mul."""
    mixed = _mixed(node, builder)
    if mixed is None:
        builder.emit(Mul(name=node.name, inputs=_both(node, builder), outputs=(node.output,)))
        return
    _scale(node, builder, mixed)


def convert_div(node: Node, builder: Builder) -> None:
    """Division by a constant is a product with its reciprocal."""
    mixed = _mixed(node, builder)
    if mixed is None:
        builder.emit(Div(name=node.name, inputs=_both(node, builder), outputs=(node.output,)))
        return
    if mixed.side is Side.LEFT:
        _divide_constant(node, builder, mixed.x, mixed.constant)
        return
    if (mixed.constant == 0).any():
        node.malformed("a division by the constant 0")
    reciprocal = 1.0 / mixed.constant.astype(np.float64)
    _scale(node, builder, Mixed(mixed.x, reciprocal, f"{node.output}.reciprocal", mixed.side))


def convert_reciprocal(node: Node, builder: Builder) -> None:
    """Reciprocal: 1 divided by the tensor."""
    _divide_constant(node, builder, builder.source(node), np.ones(1))


def _divide_constant(node: Node, builder: Builder, x: str, constant: Array) -> None:
    data = constant if constant.ndim else constant.reshape(1)
    dividend = builder.constant(node, f"{node.output}.dividend", data)
    builder.emit(Div(name=node.name, inputs=(dividend, x), outputs=(node.output,)))


def convert_sum(node: Node, builder: Builder) -> None:
    """Sum of any number of computed tensors, added one after the other."""
    values = [builder.source(node, index) for index in range(len(node.inputs))]
    if len(values) == 1:
        builder.alias(node.output, values[0])
        return
    total = values[0]
    for value in values[1:-1]:
        name, partial = builder.part(node, "partial")
        builder.emit(Add(name=name, inputs=(total, value), outputs=(partial,)))
        total = partial
    _emit_add(node, builder, (total, values[-1]), (1, 1))


def convert_pow(node: Node, builder: Builder) -> None:
    """Pow with the exponents -1/2, 1/2, 1, 2 and 3."""
    x = builder.source(node)
    exponent = builder.required(node, 1, "exponent")
    single = exponent.size == 1 and exponent.ndim <= len(builder.shape(x))
    power = float(exponent.item()) if single else math.nan
    if power not in (-0.5, 0.5, 1, 2, 3):
        node.refuse(
            "an exponent other than -1/2, 1/2, 1, 2 or 3",
            "use Mul, or fold the norm it belongs to",
        )
    if power == 1:
        builder.alias(node.output, x)
    elif power == 0.5:
        builder.emit(Sqrt(name=node.name, inputs=(x,), outputs=(node.output,)))
    elif power == -0.5:
        name, root = builder.part(node, "root")
        builder.emit(Sqrt(name=name, inputs=(x,), outputs=(root,)))
        _divide_constant(node, builder, root, np.ones(1))
    else:
        factor = x
        if power == 3:
            name, factor = builder.part(node, "square")
            builder.emit(Mul(name=name, inputs=(x, x), outputs=(factor,)))
        builder.emit(Mul(name=node.name, inputs=(factor, x), outputs=(node.output,)))


def _is_mask(constant: Array) -> bool:
    """Whether a constant that is added switches some elements off: they are minus infinity, or what
    exporters write for it, beside others that are not."""
    low = constant <= MASKED
    return bool(low.any() and not low.all() and (constant[~low] > MASKED / 10).all())


def _add_mask(node: Node, builder: Builder, mixed: Mixed) -> None:
    low = mixed.constant <= MASKED
    rest = np.where(low, 0, mixed.constant)
    x = mixed.x
    shape = np.broadcast_shapes(builder.shape(x), rest.shape)
    if rest.any() or shape != builder.shape(x):
        name, value = builder.part(node, "bias")
        other = builder.constant(node, f"{node.output}.rest", rest)
        builder.emit(Add(name=name, inputs=(x, other), outputs=(value,)))
        x = value
    emit_masked(node, builder, x, ~low, -math.inf)


def _operand(node: Node, builder: Builder, mixed: Mixed) -> str:
    """The constant of a binary operator; on its grid if that is one for the whole tensor."""
    scales = builder.scales.get(mixed.name)
    if scales is None or len(np.unique(scales)) > 1 or mixed.constant.ndim == 0:
        return builder.constant(node, mixed.name, mixed.constant)
    return builder.weights(node, mixed.name, mixed.constant, axis=0, scales=scales)


def _mixed(node: Node, builder: Builder) -> Mixed | None:
    """The constant and the computed operand; None if both are computed."""
    left, right = builder.data(node.input(0)), builder.data(node.input(1))
    if left is None and right is None:
        return None
    if right is not None:
        return Mixed(builder.source(node, 0), right, node.inputs[1], Side.RIGHT)
    assert left is not None
    return Mixed(builder.source(node, 1), left, node.inputs[0], Side.LEFT)


def _both(node: Node, builder: Builder) -> tuple[str, str]:
    return builder.source(node, 0), builder.source(node, 1)


def _vector(constant: Array, shape: Shape) -> Array | None:
    """The constant as one double a channel (axis 1) of `shape`; None if it is not that."""
    if len(shape) < 2 or constant.ndim > len(shape):
        return None
    aligned = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if any(size != 1 for axis, size in enumerate(aligned.shape) if axis != 1):
        return None
    if aligned.shape[1] not in (1, shape[1]) or shape[1] > MAX_CHANNELS:
        return None
    return np.broadcast_to(aligned.reshape(-1).astype(np.float64), (shape[1],)).copy()


def _scale(node: Node, builder: Builder, mixed: Mixed) -> None:
    vector = _vector(mixed.constant, builder.shape(mixed.x))
    if vector is not None:
        emit_affine(node, builder, mixed.x, vector, np.zeros_like(vector))
        return
    other = _operand(node, builder, mixed)
    builder.emit(Mul(name=node.name, inputs=(mixed.x, other), outputs=(node.output,)))


def _emit_add(
    node: Node, builder: Builder, inputs: tuple[str, str], weights: tuple[int, int]
) -> None:
    builder.emit(Add(name=node.name, inputs=inputs, outputs=(node.output,), weights=weights))
