"""What one unit of an operator's exact sum means as a real number, and the integers it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph
from qcompile.lowering.row_mass import row_mass
from qcompile.lowering.tables import attention_powers
from qcompile.numerics import MULTIPLIER_ERROR, imported_error
from qcompile.ops import (
    Add,
    Affine,
    AttentionWidths,
    AveragePool,
    BatchMatMul,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LayerNorm,
    LinearResize,
    LocalAttention2d,
    MatMul,
    Mul,
    NormWidths,
    ReduceMean,
    Rescale,
    SumOp,
)
from qcompile.types import Array, IntType, Range, TensorType

ADD_WEIGHT_BITS = 14
"""Integer weights of an Add have at most this many bits."""
IMPORTED_ADD_WEIGHT_BITS = 24
"""Where the model brought the output's scale."""

DIVISION_FRACTION_BITS = 16
NORM_FRACTION_BITS = 14
ATTENTION_LEVELS = 1 << 14
"""What the weights of an attention window add up to."""
MOST_EMBEDDING_BITS = 3
"""Steps of 1/8 are off by 1/16 at most."""
LARGEST_SCORES = (1 << 62) - 1
NORM_INVERSE_PRECISION = 16


@dataclass(frozen=True, slots=True)
class ExactSum:
    """An operator ready for its epilogue.

    `op` has only the inputs of the integer form; `constants` are new integer constants by input
    position. `units` and `biases` have one entry or one per channel.
    """

    op: SumOp
    units: tuple[Fraction, ...]
    biases: tuple[Fraction, ...] = (Fraction(0),)
    constants: tuple[tuple[int, Array, TensorType], ...] = ()


Rule = Callable[[Graph, SumOp, TensorType], ExactSum]


def scale_of(graph: Graph, value: str) -> Fraction:
    """The per-tensor scale of a value, exactly."""
    quantization = graph.types[value].quantization
    if quantization is None or not quantization.is_per_tensor:
        raise GraphError(f"value '{value}' has no per-tensor scale to lower with")
    return quantization.exact()


def _floats(graph: Graph, op: SumOp, position: int) -> tuple[Fraction, ...]:
    if len(op.inputs) <= position:
        return (Fraction(0),)
    name = op.inputs[position]
    data, quantization = graph.constants[name], graph.types[name].quantization
    if graph.types[name].is_float or quantization is None:
        return tuple(Fraction(float(value)) for value in data)
    return tuple(int(code) * quantization.exact(c) for c, code in enumerate(data.tolist()))


def _weighted(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    """Conv, ConvTranspose, MatMul: codes of x times codes of w."""
    x, w = op.inputs[:2]
    kind = graph.types[w]
    assert kind.quantization is not None
    scale = scale_of(graph, x)
    codes = graph.constants[w]
    live: Any
    if isinstance(op, Conv):
        live = codes.reshape(codes.shape[0], -1).any(axis=1)
    elif isinstance(op, ConvTranspose):
        grouped = np.stack(np.split(codes, op.groups, axis=0))
        live = np.moveaxis(grouped, 2, 1).reshape(op.groups * codes.shape[1], -1).any(axis=1)
    else:
        live = codes.any(axis=0)
    units = tuple(
        scale * kind.quantization.exact(c) if alive else Fraction(0)
        for c, alive in enumerate(live.tolist())
    )
    return ExactSum(dataclasses.replace(op, inputs=(x, w)), units, _floats(graph, op, 2))


def _affine(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    """The sign is the integer weight, the magnitude goes to the multiplier."""
    x = op.inputs[0]
    scale = scale_of(graph, x)
    factors = _floats(graph, op, 1)
    signs = np.array([(f > 0) - (f < 0) for f in factors], dtype=np.int8)
    kind = TensorType((len(factors),), IntType(2, narrow=True))
    return ExactSum(
        op,
        tuple(scale * abs(f) for f in factors),
        _floats(graph, op, 2),
        ((1, signs, kind),),
    )


def _same_unit(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    return ExactSum(op, (scale_of(graph, op.inputs[0]),))


def _average_pool(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, AveragePool)
    shape = graph.types[op.inputs[0]].shape
    common = op.common_divisor(shape[2:], output.shape[2:])
    return ExactSum(op, (scale_of(graph, op.inputs[0]) / common,))


def _reduce_mean(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, ReduceMean)
    count = op.count(graph.types[op.inputs[0]].shape)
    return ExactSum(op, (scale_of(graph, op.inputs[0]) / count,))


def _linear_resize(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, LinearResize)
    return ExactSum(op, (scale_of(graph, op.inputs[0]) / op.common(),))


def _mul(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    return ExactSum(op, (scale_of(graph, op.inputs[0]) * scale_of(graph, op.inputs[1]),))


def _batch_matmul(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, BatchMatMul)
    unit = scale_of(graph, op.inputs[0]) * scale_of(graph, op.inputs[1])
    return ExactSum(dataclasses.replace(op, mass=row_mass(graph, op)), (unit,))


def _add(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    """Integer weights bring both inputs to one unit, off by at most 1/16 output step (less where
    the output's grid came with the model)."""
    assert isinstance(op, Add)
    assert output.quantization is not None
    imported = output.quantization.imported is not None
    error = imported_error(output.codes) if imported else MULTIPLIER_ERROR
    most = IMPORTED_ADD_WEIGHT_BITS if imported else ADD_WEIGHT_BITS
    scales = [scale_of(graph, value) for value in op.inputs]
    larger, smaller = max(scales), min(scales)
    reach = max(graph.types[value].codes.magnitude for value in op.inputs)
    budget = error * output.quantization.exact()
    bits = 0
    while bits < most:
        exact = smaller / larger * (1 << bits)
        if abs(exact - round(exact)) * larger / (1 << bits) * reach <= budget:
            break
        bits += 1
    weights = [round(scale / larger * (1 << bits)) for scale in scales]
    signed = (weights[0] * op.weights[0], weights[1] * op.weights[1])
    return ExactSum(dataclasses.replace(op, weights=signed), (larger / (1 << bits),))


def _div(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, Div)
    unit = scale_of(graph, op.inputs[0]) / scale_of(graph, op.inputs[1])
    return ExactSum(
        dataclasses.replace(op, fraction_bits=DIVISION_FRACTION_BITS),
        (unit / (1 << DIVISION_FRACTION_BITS),),
    )


def _group_norm(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, GroupNorm)
    x = op.inputs[0]
    kind = graph.types[x]
    return _norm(graph, op, norm_widths(op, kind.size // op.groups, kind, scale_of(graph, x)))


def _layer_norm(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, LayerNorm)
    x = op.inputs[0]
    kind = graph.types[x]
    return _norm(graph, op, norm_widths(op, kind.shape[op.axis], kind, scale_of(graph, x)))


def _norm(graph: Graph, op: GroupNorm | LayerNorm, widths: NormWidths) -> ExactSum:
    unit = Fraction(1, 1 << widths.fraction_bits)
    factors = _floats(graph, op, 1) if len(op.inputs) > 1 else (Fraction(1),)
    return ExactSum(
        dataclasses.replace(op, inputs=op.inputs[:1], widths=widths),
        tuple(unit * factor for factor in factors),
        _floats(graph, op, 2),
    )


def norm_widths(
    op: GroupNorm | LayerNorm, count: int, kind: TensorType, scale: Fraction
) -> NormWidths:
    """Widths for which no intermediate of a norm of `count` codes exceeds 62 bits.

    With N codes of magnitude M: V <= (N * M)**2, and |N * x - S1| <= sqrt(N * V), so the product
    with the inverse stays below 2 * sqrt(N) * 2**(inverse_bits - root_bits).

    Raises:
        GraphError: the group is too large for 64-bit arithmetic.
    """
    magnitude_bits = (count * kind.codes.magnitude).bit_length()
    root_bits = min(16, (61 - 2 * magnitude_bits) // 2)
    if root_bits < 0:
        raise GraphError(
            f"{op.label()}: groups of {count} values with {kind.element} codes exceed 64-bit sums; "
            f"use fewer activation bits or a smaller --input-shape"
        )
    inverse_bits = min(62, NORM_INVERSE_PRECISION + magnitude_bits + root_bits)
    root_count_bits = (count.bit_length() + 1) // 2
    inverse_bits = min(inverse_bits, 61 - root_count_bits + root_bits)
    drop = max(0, inverse_bits - root_bits - NORM_FRACTION_BITS)
    epsilon = Fraction(op.epsilon) * count**2 / scale**2 * (1 << (2 * root_bits))
    return NormWidths(root_bits, max(1, min(1 << 61, round(epsilon))), inverse_bits, drop)


def _local_attention(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    assert isinstance(op, LocalAttention2d)
    q, k, v, relative = op.inputs[:4]
    data = graph.constants[relative].astype(np.float64) / float(scale_of(graph, k))
    bits = _embedding_bits(data)
    codes = np.floor(data * (1 << bits) + 0.5).astype(np.int64)
    unit = scale_of(graph, q) * scale_of(graph, k) / (1 << bits) * Fraction(op.score_scale)
    stated = dataclasses.replace(op, widths=AttentionWidths(bits, 0, (), ATTENTION_LEVELS))
    reach = stated.score_reach(graph.types[q], graph.types[k], codes)
    if reach.high - reach.low > LARGEST_SCORES:
        raise GraphError(
            f"{op.label()}: its scores reach {reach.low}..{reach.high}, more than 62 bits; use "
            f"fewer activation bits, or smaller position embeddings"
        )
    shift, powers = attention_powers(unit, reach.high - reach.low)
    widths = AttentionWidths(bits, shift, powers, ATTENTION_LEVELS)
    value = scale_of(graph, v) / ATTENTION_LEVELS
    element = IntType.holding(Range(int(codes.min()), int(codes.max())))
    return ExactSum(
        dataclasses.replace(op, inputs=(q, k, v, relative), widths=widths),
        tuple(value * factor for factor in _floats(graph, op, 4))
        if len(op.inputs) > 4
        else (value,),
        _floats(graph, op, 5),
        ((3, codes.astype(element.storage), TensorType(codes.shape, element)),),
    )


def _embedding_bits(steps: Array) -> int:
    """Fraction bits for position embeddings, counted in steps of the keys: each is then off by at
    most 1/16 step."""
    for bits in range(MOST_EMBEDDING_BITS):
        error = np.abs(steps * (1 << bits) - np.floor(steps * (1 << bits) + 0.5)) / (1 << bits)
        if error.max(initial=0.0) <= MULTIPLIER_ERROR:
            return bits
    return MOST_EMBEDDING_BITS


RULES: dict[type[SumOp], Rule] = {
    Conv: _weighted,
    ConvTranspose: _weighted,
    MatMul: _weighted,
    BatchMatMul: _batch_matmul,
    Affine: _affine,
    Rescale: _same_unit,
    Add: _add,
    Mul: _mul,
    Div: _div,
    AveragePool: _average_pool,
    ReduceMean: _reduce_mean,
    LinearResize: _linear_resize,
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    LocalAttention2d: _local_attention,
}


def exact_sum(graph: Graph, op: SumOp, output: TensorType) -> ExactSum:
    """The integer form of a sum operator in a quantized graph."""
    return RULES[type(op)](graph, op, output)


def constant_operand(data: Array, bits: int) -> tuple[Array, IntType, float]:
    """Codes, type and per-tensor scale of a constant that is an operand of Add, Mul or Div."""
    element = IntType(bits, narrow=True)
    largest = float(np.abs(data).max(initial=0.0))
    scale = largest / element.high if largest > 0 else 1.0
    codes = np.clip(np.floor(data.astype(np.float64) / scale + 0.5), element.low, element.high)
    return codes.astype(element.storage), element, scale
