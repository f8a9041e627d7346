"""Constants that lie on a grid of the model become the codes they were made of."""

from __future__ import annotations

import dataclasses

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import WEIGHTED, Add, Div, Mul
from qcompile.passes.weight_rows import from_rows, to_rows
from qcompile.types import (
    TERNARY,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    Range,
    TensorType,
)

BIAS = IntType(32)
"""The type that all tools have for biases."""

OFF_GRID = 0.01
"""Float noise allowed to a number on a grid, in steps and for each code."""


def take_codes(graph: Graph) -> Graph:
    """Weights, biases and constant operands as integers; the scales are those of the model.

    Raises:
        GraphError: a constant is not on the grid that its type says.
    """
    rewriter = Rewriter(graph)
    for op in graph.ops:
        inputs = list(op.inputs)
        if isinstance(op, WEIGHTED):
            inputs[1] = _weights(graph, rewriter, op)
            if len(inputs) > 2 and graph.output_type(op).quantization is not None:
                inputs[2] = _vector(graph, rewriter, op, inputs[2])
        elif isinstance(op, Add | Mul | Div):
            inputs = [_vector(graph, rewriter, op, name) for name in inputs]
        if tuple(inputs) != op.inputs:
            rewriter.replace(op, dataclasses.replace(op, inputs=tuple(inputs)))
    return rewriter.finish()


def _weights(graph: Graph, rewriter: Rewriter, op: Op) -> str:
    name = op.inputs[1]
    kind = graph.types[name]
    if kind.quantization is None or not kind.is_float:
        return name
    rows = to_rows(op, graph.constants[name])
    codes = _codes(op, name, rows, np.asarray(kind.quantization.scale)[:, None])
    element, codebook = weight_type(codes)
    data = from_rows(op, codes, kind.shape).astype(element.storage)
    typed = TensorType(kind.shape, element, kind.quantization, codebook)
    return rewriter.add_constant(f"{name}.codes", np.ascontiguousarray(data), typed)


def weight_type(codes: Array) -> tuple[IntType, Codebook]:
    """The smallest type of the codes that do occur, narrow where it can be."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    if low >= -1 and high <= 1:
        is_binary = codes.size > 0 and bool(codes.all())
        kind = CodebookKind.BINARY if is_binary else CodebookKind.TERNARY
        return TERNARY, Codebook(kind, 2 if is_binary else 3)
    holding = IntType.holding(Range(low, max(high, 0)) if low < 0 else Range(-1, high))
    narrow = IntType(holding.bits, narrow=True)
    element = narrow if narrow.low <= low else holding
    return element, Codebook(CodebookKind.UNIFORM, element.high - element.low + 1)


def _vector(graph: Graph, rewriter: Rewriter, op: Op, name: str) -> str:
    """A bias, or a constant with one scale."""
    kind = graph.types[name]
    if not graph.is_constant(name) or kind.quantization is None or not kind.is_float:
        return name
    scale = np.asarray(kind.quantization.scale)
    codes = _codes(op, name, graph.constants[name], scale if scale.size > 1 else scale[0])
    reach = Range(int(codes.min(initial=0)), int(codes.max(initial=0)))
    element = IntType.holding(reach)
    if isinstance(op, WEIGHTED) and BIAS.range.contains(reach):
        element = BIAS
    grid = Quantization(kind.quantization.scale, 0, kind.quantization.imported)
    typed = TensorType(kind.shape, element, grid)
    return rewriter.add_constant(f"{name}.codes", codes.astype(element.storage), typed)


def _codes(op: Op, name: str, data: Array, scale: Array) -> Array:
    steps = data.astype(np.float64) / scale
    codes = np.rint(steps)
    # float32 holds 24 bits: very large biases are found up to that.
    noise = np.maximum(np.abs(codes) * 2.0**-22, OFF_GRID)
    if (np.abs(steps - codes) > noise).any():
        raise GraphError(f"{op.label()}: constant '{name}' is not on the grid that it came with")
    return codes.astype(np.int64)
