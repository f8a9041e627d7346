"""Operators about constants, shapes and element types: Constant, Shape, Size, Cast."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from qcompile.importer.builder import Builder
from qcompile.importer.inputs import FLOATS
from qcompile.importer.node import Node
from qcompile.importer.operators.layout import convert_identity
from qcompile.importer.tensors import element_name
from qcompile.ops.reshape import Reshape


def convert_constant(node: Node, builder: Builder) -> None:
    """Constant in all its attribute forms but strings and sparse tensors."""
    if len(node.attributes) != 1:
        node.malformed(f"it has {len(node.attributes)} attributes instead of one value")
    ((name, value),) = node.attributes.items()
    match name:
        case "value":
            assert isinstance(value, onnx.TensorProto)
            builder.know(node.output, builder.reader.read(value, node.label()))
        case "value_float" | "value_floats":
            builder.know(node.output, np.asarray(value, dtype=np.float32))
        case "value_int" | "value_ints":
            builder.know(node.output, np.asarray(value, dtype=np.int64))
        case _:
            node.refuse(f"attribute '{name}'", "use dense tensors of numbers")


def convert_shape(node: Node, builder: Builder) -> None:
    """Shapes are static, so they are constants."""
    shape = builder.shape_of(node, 0)
    end = node.integer("end", len(shape)) if node.opset >= 15 else len(shape)
    start = node.integer("start", 0) if node.opset >= 15 else 0
    builder.know(node.output, np.asarray(shape[start:end], dtype=np.int64))


def convert_size(node: Node, builder: Builder) -> None:
    """The number of elements is a constant too."""
    builder.know(node.output, np.asarray(math.prod(builder.shape_of(node, 0)), dtype=np.int64))


def convert_cast(node: Node, builder: Builder) -> None:
    """Cast between float types, and from integer images to float, changes nothing here."""
    x = builder.movable(node)
    target = node.integer("to", TensorProto.UNDEFINED)
    classes = not builder.types[x].is_float
    if target in FLOATS and classes:
        node.refuse("class indices become real numbers", "make the ArgMax an output of the network")
    if target not in FLOATS and not classes and not builder.is_pixels(x):
        node.refuse(
            f"real numbers become {element_name(target)}", "leave out the Cast; outputs are float32"
        )
    if target == TensorProto.BOOL or target == TensorProto.STRING:
        node.refuse("a cast to bool or string", "leave out the Cast")
    if target in FLOATS and builder.is_pixels(x):
        # a value of its own: arithmetic is allowed on it, not on the integers themselves
        shape = builder.shape(x)
        builder.emit(Reshape(name=node.name, inputs=(x,), outputs=(node.output,), shape=shape))
        return
    convert_identity(node, builder)
