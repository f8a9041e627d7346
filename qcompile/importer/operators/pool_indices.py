"""Indices of MaxPool on their way to MaxUnpool.

ONNX counts positions in the whole tensor that was pooled. The graph has the position in the window
instead, as `MaxPoolIndex` makes it. What exporters add to the numbers and take away again (torch
counts within a channel) is followed here, not computed.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from qcompile.importer.builder import Builder, PoolIndices
from qcompile.importer.node import Node
from qcompile.importer.operators.window import Window, read_window
from qcompile.ops.max_pool_index import MaxPoolIndex
from qcompile.ops.max_unpool import MaxUnpool
from qcompile.types import Array, IntType, Range

ADVICE = "hand the indices of a MaxPool to MaxUnpool as they are"
INTEGERS = (TensorProto.INT64, TensorProto.INT32)
MAX_ELEMENTS = 1 << 24
"""Of a map whose indices are constant: those of a pool of single elements."""


def emit_indices(node: Node, builder: Builder, x: str, window: Window, ceil_mode: bool) -> None:
    """The second output of a MaxPool."""
    shape = builder.shape(x)
    output = node.outputs[1]
    if node.integer("storage_order", 0) != 0:
        node.refuse("indices in column-major order", "export with storage_order 0")
    if all(size == 1 for size in (*window.kernel, *window.strides)) and not any(
        (*window.pads_begin, *window.pads_end)
    ):
        if math.prod(shape) > MAX_ELEMENTS:
            node.refuse(f"indices of {math.prod(shape)} single elements", "use a smaller input")
        builder.know(output, np.arange(math.prod(shape)).reshape(shape))
        return
    element = IntType.holding(Range(0, math.prod(window.kernel) - 1))
    op = MaxPoolIndex(
        name=builder.part_name(node, "indices"),
        inputs=(x,),
        outputs=(output,),
        kernel=window.kernel,
        strides=window.strides,
        pads_begin=window.pads_begin,
        pads_end=window.pads_end,
        dilations=window.dilations,
        ceil_mode=ceil_mode,
    )
    builder.emit(op, element)
    builder.indices[output] = PoolIndices(op, shape, np.zeros((1,) * len(shape), np.int64))


def convert_indices(node: Node, builder: Builder) -> None:
    """A node that reads indices of a MaxPool: MaxUnpool, or what moves its numbers by constants."""
    match node.operator:
        case "MaxUnpool":
            convert_max_unpool(node, builder)
        case "Identity":
            _alias(node, builder, node.inputs[0], 0)
        case "Cast" if node.integer("to", TensorProto.UNDEFINED) in INTEGERS:
            _alias(node, builder, node.inputs[0], 0)
        case "Add" | "Sub":
            _shift(node, builder)
        case _:
            node.refuse("it reads the indices of a MaxPool", ADVICE)


def convert_max_unpool(node: Node, builder: Builder) -> None:
    """MaxUnpool into the shape that the MaxPool of its indices read."""
    x = builder.source(node)
    found = builder.indices.get(node.inputs[1])
    if found is None:
        node.refuse(f"its indices '{node.inputs[1]}' are not those of a MaxPool", ADVICE)
    pooled, pool = found.shape, found.pool
    if builder.shape(x) != builder.shape(pool.output):
        node.malformed(
            f"elements of shape {list(builder.shape(x))} and indices of shape "
            f"{list(builder.shape(pool.output))}"
        )
    window = read_window(node, builder.shape(x), node.integers("kernel_shape", ()))
    given = builder.integers(node, 2, "output_shape")
    sizes = zip(
        builder.shape(x)[2:],
        window.kernel,
        window.strides,
        window.pads_begin,
        window.pads_end,
        strict=True,
    )
    shape = given or (
        *builder.shape(x)[:2],
        *((size - 1) * stride + k - begin - end for size, k, stride, begin, end in sizes),
    )
    if shape != pooled:
        node.refuse(
            f"its result of shape {list(shape)} is not the {list(pooled)} that was pooled",
            "give MaxUnpool the shape of the MaxPool's input as output_shape",
        )
    if found.offsets.any():
        node.refuse(
            "its indices do not count positions of the whole tensor",
            "add what was subtracted from the indices of MaxPool",
        )
    builder.emit(
        MaxUnpool(
            name=node.name,
            inputs=(x, pool.output),
            outputs=(node.output,),
            kernel=pool.kernel,
            strides=pool.strides,
            pads_begin=pool.pads_begin,
            dilations=pool.dilations,
            spatial=pooled[2:],
        )
    )


def _shift(node: Node, builder: Builder) -> None:
    """Constants that are added to indices, or subtracted."""
    sides = [builder.indices.get(value) for value in node.inputs]
    data = [builder.data(value) for value in node.inputs]
    if sides[0] is not None and data[1] is not None:
        source, constant = node.inputs[0], data[1]
    elif sides[1] is not None and data[0] is not None and node.operator == "Add":
        source, constant = node.inputs[1], data[0]
    else:
        node.refuse("it reads the indices of a MaxPool", ADVICE)
    if constant.dtype.kind not in "iu":
        node.malformed("indices and real numbers")
    _alias(node, builder, source, constant if node.operator == "Add" else -constant)


def _alias(node: Node, builder: Builder, source: str, more: Array | int) -> None:
    """The node's output: the indices of `source`, as numbers that are `more` higher."""
    found = builder.indices[source]
    try:
        offsets = np.add(found.offsets, more)
        fits = np.broadcast_shapes(offsets.shape, builder.shape(found.pool.output))
    except ValueError:
        fits = ()
    if fits != builder.shape(found.pool.output):
        node.malformed("a constant that does not fit the indices")
    builder.indices[node.output] = PoolIndices(found.pool, found.shape, offsets)
    builder.alias(node.output, found.pool.output)
