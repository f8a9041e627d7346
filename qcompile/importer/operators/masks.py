"""Where and IsNaN. Choices by a constant condition are masks."""

from __future__ import annotations

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators import comparisons
from qcompile.ops.masked_fill import MaskedFill
from qcompile.ops.mul import Mul
from qcompile.types import Array


def convert_is_nan(node: Node, builder: Builder) -> None:
    """IsNaN: never, among integers. Only a Where may read it."""
    builder.never[node.output] = builder.shape(builder.source(node))


def convert_where(node: Node, builder: Builder) -> None:
    """Where: a constant condition is a mask that fills in one number."""
    condition = node.input(0)
    if condition in builder.never:
        _choose(node, builder, 2)
        return
    mask = builder.data(condition)
    if mask is None:
        comparisons.convert_where(node, builder)
        return
    if mask.dtype != np.bool_:
        node.malformed(f"a condition of {mask.dtype} instead of bool")
    constants = [builder.data(node.input(1)), builder.data(node.input(2))]
    if mask.all() or not mask.any():
        _choose(node, builder, 1 if mask.all() else 2)
        return
    if constants[0] is None and constants[1] is None:
        node.refuse("a choice between two computed tensors", "multiply both by masks and add them")
    which = 0 if constants[0] is None else 1
    fill = constants[1 - which]
    assert fill is not None
    keeps = mask if which == 0 else ~mask
    x = builder.source(node, 1 + which)
    _fill(node, builder, x, keeps, fill)


def emit_masked(node: Node, builder: Builder, x: str, keeps: Array, value: float) -> None:
    """`MaskedFill` as the node's main operator."""
    mask = builder.constant(node, f"{node.output}.mask", keeps.astype(np.float32))
    builder.emit(MaskedFill(name=node.name, inputs=(x, mask), outputs=(node.output,), value=value))


def _fill(node: Node, builder: Builder, x: str, keeps: Array, fill: Array) -> None:
    """x where `keeps`, else `fill`, with broadcasting."""
    try:
        shape = np.broadcast_shapes(builder.shape(x), keeps.shape, fill.shape)
    except ValueError:
        node.malformed("its inputs do not broadcast")
    used = np.broadcast_to(fill, shape)[~np.broadcast_to(keeps, shape)]
    if np.isnan(used).any() or len(np.unique(used)) > 1:
        node.refuse("several different constants are filled in", "fill in one number, and add")
    if shape != builder.shape(x):
        factor = builder.constant(node, f"{node.output}.ones", np.ones(shape, np.float32))
        name, value = builder.part(node, "broadcast")
        builder.emit(Mul(name=name, inputs=(x, factor), outputs=(value,)))
        x = value
    emit_masked(node, builder, x, keeps, float(used[0]))


def _choose(node: Node, builder: Builder, index: int) -> None:
    """One of the two values, whole."""
    data = builder.data(node.input(index))
    shapes = [builder.shape_of(node, position) for position in range(3)]
    if np.broadcast_shapes(*shapes) != shapes[index]:
        node.refuse("a choice that makes its result larger", "use Expand")
    if data is not None:
        builder.know(node.output, data)
    else:
        builder.alias(node.output, builder.source(node, index))
