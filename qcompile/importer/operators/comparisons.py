"""Sign, comparisons, Where, And, Or and Not: what is true is 1, what is false 0, both real numbers.

A sign or a comparison with a number is a `Steps`; passes join those of one tensor.
"""

from __future__ import annotations

import math

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.activations import emit_rescale
from qcompile.ops.activation import Activation
from qcompile.ops.add import Add
from qcompile.ops.mul import Mul
from qcompile.ops.rescale import Rescale
from qcompile.ops.steps import Steps

_ABOVE, _FROM, _BELOW, _UP_TO = (0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0)
"""x > c, x >= c, x < c, x <= c: below c, at it, and above it."""
_EXCHANGED = {_ABOVE: _BELOW, _FROM: _UP_TO, _BELOW: _ABOVE, _UP_TO: _FROM}
"""c > x is x < c."""
_NOT = Activation(gain=(-1.0,), shift=(1.0,))


def convert_sign(node: Node, builder: Builder) -> None:
    """Sign: -1, 0 at 0 alone, 1."""
    _emit_steps(node, builder, builder.source(node), 0.0, (-1.0, 0.0, 1.0))


def convert_greater(node: Node, builder: Builder) -> None:
    """Greater: strictly."""
    _compare(node, builder, _ABOVE)


def convert_greater_or_equal(node: Node, builder: Builder) -> None:
    """GreaterOrEqual."""
    _compare(node, builder, _FROM)


def convert_less(node: Node, builder: Builder) -> None:
    """Less: strictly."""
    _compare(node, builder, _BELOW)


def convert_less_or_equal(node: Node, builder: Builder) -> None:
    """LessOrEqual."""
    _compare(node, builder, _UP_TO)


def convert_not(node: Node, builder: Builder) -> None:
    """Not: 1 - x."""
    emit_rescale(node, builder, _NOT)


def convert_and(node: Node, builder: Builder) -> None:
    """And of two computed tensors: their product."""
    builder.emit(Mul(name=node.name, inputs=_both(node, builder), outputs=(node.output,)))


def convert_or(node: Node, builder: Builder) -> None:
    """Or of two computed tensors: their sum, at most 1."""
    inputs = _both(node, builder)
    most = Activation(high=1.0)
    builder.emit(Add(name=node.name, inputs=inputs, outputs=(node.output,), activation=most))


def convert_where(node: Node, builder: Builder) -> None:
    """Where: condition * a + (1 - condition) * b. Each of a, b is computed, or one number."""
    condition = builder.source(node)
    parts = [_branch(node, builder, index) for index in (1, 2)]
    if all(isinstance(part, float) for part in parts):
        yes, no = (float(part) for part in parts)
        activation = Activation(gain=(yes - no,), shift=(no,))
        inputs = (condition,)
        builder.emit(
            Rescale(name=node.name, inputs=inputs, outputs=(node.output,), activation=activation)
        )
        return
    name, otherwise = builder.part(node, "otherwise")
    builder.emit(Rescale(name=name, inputs=(condition,), outputs=(otherwise,), activation=_NOT))
    terms = []
    for gate, part, role in ((condition, parts[0], "then"), (otherwise, parts[1], "else")):
        if part == 0.0:
            continue
        name, term = builder.part(node, role)
        if isinstance(part, float):
            scaled = Activation(gain=(part,))
            builder.emit(Rescale(name=name, inputs=(gate,), outputs=(term,), activation=scaled))
        else:
            builder.emit(Mul(name=name, inputs=(gate, part), outputs=(term,)))
        terms.append(term)
    if len(terms) == 1:
        builder.alias(node.output, terms[0])
        return
    builder.emit(Add(name=node.name, inputs=(terms[0], terms[1]), outputs=(node.output,)))


def _branch(node: Node, builder: Builder, index: int) -> str | float:
    """One branch of a Where: a value, or a number."""
    data = builder.data(node.input(index))
    if data is None:
        return builder.source(node, index)
    if data.size != 1:
        node.refuse("a constant branch that is not one number", "use Mul and Add")
    return _finite(node, float(data.reshape(-1)[0]))


def _compare(node: Node, builder: Builder, values: tuple[float, float, float]) -> None:
    left, right = builder.data(node.input(0)), builder.data(node.input(1))
    if left is None and right is None:
        name, difference = builder.part(node, "difference")
        inputs = _both(node, builder)
        builder.emit(Add(name=name, inputs=inputs, outputs=(difference,), weights=(1, -1)))
        _emit_steps(node, builder, difference, 0.0, values)
        return
    constant = right if left is None else left
    assert constant is not None
    computed = 0 if left is None else 1
    if constant.size != 1 or constant.ndim > len(builder.shape_of(node, computed)):
        node.refuse(
            "a comparison with a constant that is not one number", "subtract it first, compare to 0"
        )
    limit = _finite(node, float(constant.reshape(-1)[0]))
    values = values if left is None else _EXCHANGED[values]
    _emit_steps(node, builder, builder.source(node, computed), limit, values)


def _emit_steps(
    node: Node, builder: Builder, x: str, limit: float, values: tuple[float, ...]
) -> None:
    builder.emit(
        Steps(name=node.name, inputs=(x,), outputs=(node.output,), limits=(limit,), values=values)
    )


def _both(node: Node, builder: Builder) -> tuple[str, str]:
    return builder.source(node, 0), builder.source(node, 1)


def _finite(node: Node, value: float) -> float:
    if not math.isfinite(value):
        node.malformed("a constant is NaN or infinite")
    return value
