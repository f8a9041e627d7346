"""Grids as ONNX files hold them, and as their readers round to them.

%y u6 s=0.0312345678901   ->   %y u6 s=0.0312345679849386, multipliers of 24 bits
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.lowering.epilogue import make_epilogue
from qcompile.lowering.islands import stays_float
from qcompile.lowering.published import published_format
from qcompile.lowering.sums import exact_sum
from qcompile.numerics import Thresholds
from qcompile.ops import Conv, ConvTranspose, MatMul, SumOp
from qcompile.types import Array, IntType, Quantization, Rounding, TensorType

INT32, INT64 = IntType(32), IntType(64).range

BIAS_ERROR = 1 / 64
"""A bias may be moved by at most this share of an output step."""


@dataclass(frozen=True, slots=True)
class OnnxGrids:
    """Rounds scales and activation parameters to float32, and marks grids as imported ones.

    For a target that is an ONNX model, before the plan is written and the graph is lowered: file,
    plan and simulator then say the same numbers, the simulator rounds where a float32
    implementation of the model does, and the file imported again gives the same integers. Where
    products with multipliers of 24 bits would exceed 64 bits, the usual ones stay. With
    `integer_biases`, biases become multiples of the unit of their sum (input scale times weight
    scale) where they are moved by no more than 1/64 output step.
    """

    name: ClassVar[str] = "onnx-grids"
    integer_biases: bool = False

    def run(self, graph: Graph) -> Graph:
        graph = _in_float32(graph)
        rewriter = Rewriter(graph)
        for name in graph.inputs:
            rewriter.set_type(name, _imported(graph.types[name]))
        for op in graph.ops:
            if _is_exact(graph, op):
                rewriter.set_type(op.output, _imported(graph.output_type(op)))
            if self.integer_biases and isinstance(op, Conv | ConvTranspose | MatMul):
                _round_bias(graph, op, rewriter)
        return rewriter.finish()


def _in_float32(graph: Graph) -> Graph:
    rewriter = Rewriter(graph)
    for value, kind in graph.types.items():
        if kind.quantization is not None:
            scale = _float32(kind.quantization.scale)
            quantization = dataclasses.replace(kind.quantization, scale=scale)
            rewriter.set_type(value, dataclasses.replace(kind, quantization=quantization))
    for op in graph.ops:
        if isinstance(op, SumOp) and not op.activation.is_identity:
            rounded = dataclasses.replace(
                op.activation,
                slope=_float32(op.activation.slope),
                gain=_float32(op.activation.gain),
                shift=_float32(op.activation.shift),
            )
            rewriter.replace(op, dataclasses.replace(op, activation=rounded))
    return rewriter.finish()


def _float32(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(np.asarray(tuple(values), dtype=np.float32).tolist())


def _imported(kind: TensorType) -> TensorType:
    """The type with the rounding of ONNX, unless it has one already."""
    if kind.quantization is None or kind.quantization.imported is not None or kind.is_float:
        return kind
    quantization = dataclasses.replace(kind.quantization, imported=Rounding.HALF_EVEN)
    return dataclasses.replace(kind, quantization=quantization)


def _is_exact(graph: Graph, op: Op) -> bool:
    """Whether factors of 24 bits fit into 64-bit products."""
    if not isinstance(op, SumOp) or stays_float(graph, op):
        return True
    kind = _imported(graph.output_type(op))
    if published_format(kind) is not None:
        return False
    lowered = exact_sum(graph, op, kind)
    values = [
        value
        for value in lowered.op.inputs
        if not (graph.is_constant(value) and graph.types[value].is_float)
    ]
    kinds = [graph.types[value] for value in values]
    constants = [graph.constants.get(value) for value in values]
    for position, data, constant in lowered.constants:
        kinds.insert(position, constant)
        constants.insert(position, data)
    reach = lowered.op.reach(kinds, constants)
    epilogue = make_epilogue(op, lowered.units, lowered.biases, op.activation, kind, reach)
    return isinstance(epilogue, Thresholds) or INT64.contains(epilogue.product_range())


def _sum_units(graph: Graph, op: Op) -> Array | None:
    """The real value of one unit of the sum of Conv, ConvTranspose or MatMul as float32, for each
    output channel or for all; None where input, weights or output stay float."""
    x, weights = graph.types[op.inputs[0]], graph.types[op.inputs[1]]
    if x.is_float or weights.is_float or graph.output_type(op).is_float:
        return None
    assert x.quantization is not None
    assert weights.quantization is not None
    factor = np.float32(x.quantization.scale[0])
    return np.asarray(factor * np.asarray(weights.quantization.scale, dtype=np.float32))


def _round_bias(graph: Graph, op: Conv | ConvTranspose | MatMul, rewriter: Rewriter) -> None:
    units = _sum_units(graph, op)
    if units is None or len(op.inputs) < 3:
        return
    kind = graph.types[op.inputs[2]]
    if not kind.is_float:
        return
    data = graph.constants[op.inputs[2]].astype(np.float64)
    codes = np.rint(data / units)
    activation = op.activation
    steepest = max(1.0, *map(abs, activation.slope)) * max(map(abs, activation.gain))
    step = graph.output_type(op).quantization
    assert step is not None
    moved = np.abs(codes * units - data).max(initial=0.0) * steepest
    if moved <= BIAS_ERROR * step.scale[0] and np.abs(codes).max(initial=0.0) <= INT32.high:
        grid = TensorType(kind.shape, INT32, Quantization(tuple(units.tolist()), 0))
        # Shared biases may be on another grid elsewhere: each layer has its own.
        name = rewriter.add_constant(f"{op.inputs[2]}.codes", codes.astype(np.int32), grid)
        rewriter.replace(op, dataclasses.replace(op, inputs=(*op.inputs[:2], name)))
