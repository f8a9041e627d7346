"""Gemm and MatMul: of a constant matrix, or of two computed tensors."""

from __future__ import annotations

import numpy as np

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.ops.activation import Activation
from qcompile.ops.add import Add
from qcompile.ops.batch_matmul import BatchMatMul
from qcompile.ops.matmul import MatMul
from qcompile.ops.rescale import Rescale
from qcompile.ops.reshape import Reshape
from qcompile.ops.transpose import Transpose
from qcompile.types import Array


def convert_matmul(node: Node, builder: Builder) -> None:
    """MatMul of two computed tensors, x @ W, or W @ x by transposing both sides."""
    left, right = builder.data(node.input(0)), builder.data(node.input(1))
    if left is None and right is None:
        _computed(node, builder)
        return
    if right is not None and not _is_batch(right):
        x = builder.source(node, 0)
        if right.ndim == 1:
            _vector_product(node, builder, x, right)
        else:
            matrix = _matrix(node, right, len(builder.shape(x)))
            scales = _scales_of(node, builder, 1, matrix)
            _emit(node, builder, x, matrix, node.inputs[1], None, node.output, scales=scales)
        return
    x = builder.source(node, 0 if left is None else 1)
    rank = len(builder.shape(x))
    if right is not None or (left is not None and _is_batch(left) and rank > 1):
        names = [node.inputs[0], x] if right is None else [x, node.inputs[1]]
        emit_product(node, builder, names[0], names[1], node.output, node.name)
        return
    assert left is not None
    if left.ndim < 2 or rank < 2:
        node.refuse("a vector times a tensor", "write it as a product of matrices")
    matrix = _matrix(node, left, rank)
    swapped = _swap(node, builder, x, "transposed")
    _, product = builder.part(node, "product")
    scales = _scales_of(node, builder, 0, matrix)
    scales = None if scales is None else scales.T
    _emit(node, builder, swapped, matrix.T, node.inputs[0], None, product, "product", scales)
    _swap_into(node, builder, product, node.name, node.output)


def emit_product(
    node: Node, builder: Builder, left: str, right: str, output: str, name: str | None = None
) -> None:
    """The product of two tensors of matrices; one of them may be known data.

    A single constant matrix on the right are the weights of a `MatMul`.
    """
    name = builder.part_name(node, "product") if name is None else name
    data = builder.data(right)
    if data is not None and not _is_batch(data):
        matrix = _matrix(node, data, len(builder.shape(left)))
        inputs = (left, builder.constant(node, right, matrix))
        builder.emit(MatMul(name=name, inputs=inputs, outputs=(output,)))
        return
    factors = []
    for value in (left, right):
        known = builder.data(value)
        factors.append(value if known is None else builder.constant(node, value, known))
    builder.emit(BatchMatMul(name=name, inputs=(factors[0], factors[1]), outputs=(output,)))


def _computed(node: Node, builder: Builder) -> None:
    """Both factors are computed; a vector is a matrix of one row or column."""
    values = [builder.source(node, 0), builder.source(node, 1)]
    ranks = [len(builder.shape(value)) for value in values]
    if min(ranks) < 1:
        node.malformed("a factor is a single number")
    for index, axis in enumerate((0, 1)):
        if ranks[index] == 1:
            size = builder.shape(values[index])[0]
            part, matrix = builder.part(node, ("row", "column")[index])
            shape = (1, size) if axis == 0 else (size, 1)
            builder.emit(
                Reshape(name=part, inputs=(values[index],), outputs=(matrix,), shape=shape)
            )
            values[index] = matrix
    if min(ranks) > 1:
        emit_product(node, builder, values[0], values[1], node.output, node.name)
        return
    _, product = builder.part(node, "product")
    emit_product(node, builder, values[0], values[1], product)
    result = list(builder.shape(product))
    if ranks[1] == 1:
        result.pop()
    if ranks[0] == 1:
        result.pop(-1 if ranks[1] == 1 else -2)
    builder.emit(
        Reshape(name=node.name, inputs=(product,), outputs=(node.output,), shape=tuple(result))
    )


def _is_batch(data: Array) -> bool:
    """Whether a constant holds several matrices."""
    return any(size != 1 for size in data.shape[:-2])


def convert_gemm(node: Node, builder: Builder) -> None:
    """Gemm: alpha * A' @ B' + beta * C, at most one of A and B constant."""
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    trans_a, trans_b = node.flag("transA"), node.flag("transB")
    left, right = builder.data(node.input(0)), builder.data(node.input(1))
    if left is None and right is None:
        _gemm_of_computed(node, builder)
        return
    if right is not None:
        x, matrix, name = builder.source(node, 0), right, node.inputs[1]
        transposed, trans_matrix = trans_a, trans_b
    else:
        x = builder.source(node, 1)
        assert left is not None
        # (A' B')^T = B'^T A'^T: the computed factor comes first, the result is transposed back
        matrix, name = left, node.inputs[0]
        transposed, trans_matrix = not trans_b, not trans_a
    if matrix.ndim != 2 or len(builder.shape(x)) != 2:
        node.malformed(
            f"factors of shapes {list(builder.shape(x))} and {list(matrix.shape)} are no matrices"
        )
    scales = _scales_of(node, builder, 1 if right is not None else 0, matrix)
    if trans_matrix:
        matrix = matrix.T
        scales = None if scales is None else scales.T
    if alpha != 1.0:
        matrix = matrix.astype(np.float64) * alpha
        scales = None if scales is None or alpha == 0 else scales * abs(alpha)
    if transposed:
        x = _swap(node, builder, x, "transposed")
    addend = node.input(2) if beta != 0.0 else None
    constant = builder.data(addend)
    flipped = right is None
    if constant is not None and beta != 1.0:
        constant = constant.astype(np.float64) * beta
    bias = None
    if constant is not None and not flipped and constant.size in (1, matrix.shape[1]):
        row = constant.ndim < 2 or constant.shape[-1] == matrix.shape[1] or constant.size == 1
        if row and constant.ndim <= 2:
            bias = np.broadcast_to(constant.reshape(-1), (matrix.shape[1],))
    done = (addend is None or bias is not None) and not flipped
    if done:
        _emit(node, builder, x, matrix, name, bias, node.output, scales=scales)
        return
    _, value = builder.part(node, "product")
    _emit(node, builder, x, matrix, name, bias, value, "product", scales)
    if flipped:
        part, swapped = builder.part(node, "back")
        last = addend is None
        _swap_into(
            node, builder, value, node.name if last else part, node.output if last else swapped
        )
        if last:
            return
        value = swapped
    if constant is not None and addend is not None:
        other = builder.constant(node, addend, constant)
    else:
        other = _times(node, builder, builder.source(node, 2), beta)
    builder.emit(Add(name=node.name, inputs=(value, other), outputs=(node.output,)))


def _gemm_of_computed(node: Node, builder: Builder) -> None:
    """Gemm of two computed matrices: what the attributes say as operators of their own."""
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    values = []
    for index, flag in enumerate(("transA", "transB")):
        value = builder.source(node, index)
        if len(builder.shape(value)) != 2:
            node.malformed(f"a factor of shape {list(builder.shape(value))} is no matrix")
        values.append(_swap(node, builder, value, flag) if node.flag(flag) else value)
    addend = node.input(2) if beta != 0.0 else None
    name, output = (node.name, node.output) if addend is None else builder.part(node, "product")
    gain = Activation(gain=(alpha,))
    builder.emit(
        BatchMatMul(name=name, inputs=(values[0], values[1]), outputs=(output,), activation=gain)
    )
    if addend is None:
        return
    constant = builder.data(addend)
    if constant is not None:
        other = builder.constant(node, addend, constant.astype(np.float64) * beta)
    else:
        other = _times(node, builder, builder.source(node, 2), beta)
    builder.emit(Add(name=node.name, inputs=(output, other), outputs=(node.output,)))


def _times(node: Node, builder: Builder, value: str, factor: float) -> str:
    """A value times Gemm's beta."""
    if factor == 1.0:
        return value
    part, scaled = builder.part(node, "beta")
    gain = Activation(gain=(factor,))
    builder.emit(Rescale(name=part, inputs=(value,), outputs=(scaled,), activation=gain))
    return scaled


def _emit(
    node: Node,
    builder: Builder,
    x: str,
    matrix: Array,
    matrix_name: str,
    bias: Array | None,
    output: str,
    role: str = "",
    scales: Array | None = None,
) -> None:
    """One MatMul; a `role` names it as a part of the node instead of the node itself. `scales` are
    those of every weight, if the matrix lies on a grid."""
    inputs = [x, builder.weights(node, matrix_name, matrix, axis=1, scales=scales)]
    if bias is not None:
        grid = builder.scales.get(node.inputs[2])
        exact = grid if grid is not None and node.real("beta", 1.0) == 1.0 else None
        if exact is not None:
            exact = np.broadcast_to(exact.reshape(-1), bias.shape)
        inputs.append(builder.weights(node, node.inputs[2], bias, axis=0, scales=exact))
    name = builder.part_name(node, role) if role else node.name
    builder.emit(MatMul(name=name, inputs=tuple(inputs), outputs=(output,)))


def _scales_of(node: Node, builder: Builder, index: int, matrix: Array) -> Array | None:
    """The scales of a constant factor, in the shape that `_matrix` gives it."""
    scales = builder.scales.get(node.inputs[index])
    return None if scales is None else scales.reshape(matrix.shape)


def _matrix(node: Node, data: Array, rank: int) -> Array:
    """The last two axes of a constant whose other axes are 1."""
    if data.ndim > max(2, rank):
        node.refuse(
            f"a constant of shape {list(data.shape)} for an input of {rank} axes",
            "use one matrix for the whole input",
        )
    return data.reshape(data.shape[-2:])


def _vector_product(node: Node, builder: Builder, x: str, vector: Array) -> None:
    """x @ vector: a matrix of one column, whose axis is dropped afterwards."""
    shape = builder.shape(x)
    if len(shape) < 2:
        node.refuse("the product of two vectors", "keep the batch axis of the input")
    _, product = builder.part(node, "product")
    _emit(node, builder, x, vector.reshape(-1, 1), node.inputs[1], None, product, "product")
    builder.emit(
        Reshape(name=node.name, inputs=(product,), outputs=(node.output,), shape=shape[:-1])
    )


def _swap(node: Node, builder: Builder, x: str, role: str) -> str:
    name, value = builder.part(node, role)
    _swap_into(node, builder, x, name, value)
    return value


def _swap_into(node: Node, builder: Builder, x: str, name: str, output: str) -> None:
    rank = len(builder.shape(x))
    permutation = (*range(rank - 2), rank - 1, rank - 2)
    builder.emit(Transpose(name=name, inputs=(x,), outputs=(output,), permutation=permutation))
