"""QOperator models: nodes that take codes and write codes, with scales among their inputs.

Each is the ONNX operator of the same name between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Attribute, Node
from qcompile.importer.operators import (
    activations,
    arithmetic,
    conv,
    layout,
    matmul,
    pointwise,
    pool,
    reduce,
)
from qcompile.importer.operators.quantize import dequantize, quantize, read_grid
from qcompile.types import Array

OPSET = 13
"""Of the float operators that are made here."""


def convert_qlinear_conv(node: Node, builder: Builder) -> None:
    """QLinearConv: the bias counts in scale of x times scale of w."""
    x = _real(node, builder, (0, 1, 2))
    w = _real(node, builder, (3, 4, 5), axis=0)
    inputs = [x, w]
    if node.input(8) is not None:
        inputs.append(_bias(node, builder, 8, (1, 4)))
    conv.convert_conv(_float(node, builder, "Conv", inputs), builder)
    _coded(node, builder, (6, 7))


def convert_qlinear_matmul(node: Node, builder: Builder) -> None:
    """QLinearMatMul: a vector of scales of b is one for each column."""
    rank = len(builder.shape_of(node, 3))
    inputs = [_real(node, builder, (0, 1, 2), axis=-2), _real(node, builder, (3, 4, 5), rank - 1)]
    matmul.convert_matmul(_float(node, builder, "MatMul", inputs), builder)
    _coded(node, builder, (6, 7))


def convert_qgemm(node: Node, builder: Builder) -> None:
    """QGemm of onnxruntime; without an output scale its result is real."""
    axis = 0 if node.flag("transB") else 1
    inputs = [_real(node, builder, (0, 1, 2)), _real(node, builder, (3, 4, 5), axis)]
    if node.input(6) is not None:
        inputs.append(_bias(node, builder, 6, (1, 4), node.real("alpha", 1.0)))
    if node.input(7) is None:
        gemm = _float(node, builder, "Gemm", inputs)
        matmul.convert_gemm(dataclasses.replace(gemm, outputs=node.outputs), builder)
        return
    matmul.convert_gemm(_float(node, builder, "Gemm", inputs), builder)
    _coded(node, builder, (7, 8))


def convert_qlinear_add(node: Node, builder: Builder) -> None:
    """QLinearAdd."""
    inputs = [_real(node, builder, (0, 1, 2)), _real(node, builder, (3, 4, 5))]
    arithmetic.convert_add(_float(node, builder, "Add", inputs), builder)
    _coded(node, builder, (6, 7))


def convert_qlinear_mul(node: Node, builder: Builder) -> None:
    """QLinearMul."""
    inputs = [_real(node, builder, (0, 1, 2)), _real(node, builder, (3, 4, 5))]
    arithmetic.convert_mul(_float(node, builder, "Mul", inputs), builder)
    _coded(node, builder, (6, 7))


def convert_qlinear_concat(node: Node, builder: Builder) -> None:
    """QLinearConcat: the output's format first, then every input with its own."""
    count = (len(node.inputs) - 2) // 3
    if len(node.inputs) != 2 + 3 * count:
        node.malformed(f"{len(node.inputs)} inputs; it needs a scale and a zero point for each")
    firsts = range(2, 2 + 3 * count, 3)
    inputs = [_real(node, builder, (first, first + 1, first + 2)) for first in firsts]
    layout.convert_concat(_float(node, builder, "Concat", inputs), builder)
    _coded(node, builder, (0, 1))


def convert_qlinear_average_pool(node: Node, builder: Builder) -> None:
    """QLinearAveragePool."""
    _channels_first(node)
    _unary(node, builder, "AveragePool", {"channels_last"})


def convert_qlinear_global_average_pool(node: Node, builder: Builder) -> None:
    """QLinearGlobalAveragePool."""
    _channels_first(node)
    _unary(node, builder, "GlobalAveragePool", {"channels_last"})


def convert_qlinear_leaky_relu(node: Node, builder: Builder) -> None:
    """QLinearLeakyRelu."""
    _unary(node, builder, "LeakyRelu")


def convert_qlinear_sigmoid(node: Node, builder: Builder) -> None:
    """QLinearSigmoid."""
    _unary(node, builder, "Sigmoid")


def convert_qlinear_softmax(node: Node, builder: Builder) -> None:
    """QLinearSoftmax; its meaning depends on an opset that it states itself."""
    _unary(node, builder, "Softmax", {"opset"}, node.integer("opset", OPSET))


_UNARY = {
    "AveragePool": pool.convert_average_pool,
    "GlobalAveragePool": pool.convert_global_average_pool,
    "LeakyRelu": activations.convert_leaky_relu,
    "Sigmoid": pointwise.convert_sigmoid,
    "Softmax": reduce.convert_softmax,
}


def _unary(
    node: Node,
    builder: Builder,
    operator: str,
    without: set[str] | frozenset[str] = frozenset(),
    opset: int = OPSET,
) -> None:
    """A function of one tensor: inputs x, scale, zero point, output scale, output zero point."""
    attributes = {name: value for name, value in node.attributes.items() if name not in without}
    inputs = [_real(node, builder, (0, 1, 2))]
    plain = _float(node, builder, operator, inputs, attributes)
    _UNARY[operator](dataclasses.replace(plain, opset=opset), builder)
    _coded(node, builder, (3, 4))


def _channels_first(node: Node) -> None:
    if node.flag("channels_last"):
        node.refuse("channels_last", "export with channels on axis 1")


def _real(node: Node, builder: Builder, positions: tuple[int, int, int], axis: int = 0) -> str:
    """The real numbers of one quantised input, as an ONNX value."""
    value, scale, zero = positions
    if node.input(value) is None:
        node.malformed(f"input {value} is missing")
    shape = builder.shape_of(node, value)
    grid = read_grid(node, builder, shape, (scale, zero), axis)
    name = builder.fresh(f"{node.inputs[value]}.real")
    role = builder.part_name(node, f"input{value}")
    part = dataclasses.replace(node, name=role, inputs=(node.inputs[value],), outputs=(name,))
    dequantize(part, builder, grid)
    return name


def _bias(
    node: Node, builder: Builder, position: int, scales: tuple[int, int], factor: float = 1.0
) -> str:
    """int32 codes whose scale is the product of two others, exactly."""
    codes = builder.required(node, position, "bias")
    if codes.dtype != np.int32:
        node.malformed(f"bias of type {codes.dtype}; it must be int32")
    product: Array = np.full(1, factor)
    for index in scales:
        product = product * builder.required(node, index, "scale").astype(np.float64).reshape(-1)
    if product.size not in (1, codes.reshape(-1).size):
        node.malformed(f"bias of shape {list(codes.shape)} for {product.size} scales")
    name = builder.fresh(f"{node.inputs[position]}.real")
    flat = np.broadcast_to(product, codes.reshape(-1).shape).reshape(codes.shape)
    builder.know(name, codes * flat)
    builder.scales[name] = np.abs(flat)
    return name


def _float(
    node: Node,
    builder: Builder,
    operator: str,
    inputs: list[str],
    attributes: Mapping[str, Attribute] | None = None,
) -> Node:
    """The node as the float operator, writing an inner value."""
    return dataclasses.replace(
        node,
        operator=operator,
        opset=OPSET,
        inputs=tuple(inputs),
        outputs=(_inner(node),),
        attributes=node.attributes if attributes is None else attributes,
    )


def _inner(node: Node) -> str:
    return f"{node.output}.real"


def _coded(node: Node, builder: Builder, positions: tuple[int, int]) -> None:
    """The node's output: codes of what `_float` has written."""
    shape = builder.shape_of(dataclasses.replace(node, inputs=(_inner(node),)), 0)
    grid = read_grid(node, builder, shape, positions, 1)
    part = dataclasses.replace(node, inputs=(_inner(node),))
    quantize(part, builder, grid, "quantize")
