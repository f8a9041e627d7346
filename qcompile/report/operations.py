"""The arithmetic of an operator by the widths of its factors and sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.multiplications import multiplications, weight_type
from qcompile.numerics import Requantize
from qcompile.ops import (
    Add,
    BatchMatMul,
    Conv,
    ConvTranspose,
    LocalAttention2d,
    MatMul,
    Mul,
    Softmax,
    SumOp,
)
from qcompile.report.formats import FLOAT_BITS, element_bits, stored_bits
from qcompile.types import CodebookKind, IntType, Range, TensorType

POWER_BITS = 16
"""Of an entry of a softmax's table of exponentials."""
QUOTIENT_BITS = 32
"""A division is counted as one product of this width: that with the inverse."""
_SIGNS = (CodebookKind.BINARY, CodebookKind.TERNARY)


@dataclass(frozen=True, slots=True)
class Products:
    """Products that are added up.

    Attributes:
        count: how many there are.
        sums: results that they add up to.
        left: bits of one factor: of weights what a stored weight takes.
        right: bits of the other.
        total: bits of the sums, as proven; 32 for floats.
        signs: one factor is -1, 0 or 1, so that no product is computed, only a sum.
        is_float: floats.
    """

    count: int
    sums: int
    left: int
    right: int
    total: int
    signs: bool = False
    is_float: bool = False

    @property
    def bit_operations(self) -> int:
        """Products times the bits of both factors."""
        return self.count * self.left * self.right


@dataclass(frozen=True, slots=True)
class Operations:
    """Everything that is counted of one operator.

    Attributes:
        products: sums of products.
        multiplies: (count, bits, bits) of single products: softmax, `Mul`.
        adds: (count, bits) of single additions, subtractions and comparisons: softmax, `Add`.
        rounding_multiplies: of the epilogue, which only integers have.
        rounding_adds: likewise.
        is_float: what is single is of floats.
    """

    products: tuple[Products, ...] = ()
    multiplies: tuple[tuple[int, int, int], ...] = ()
    adds: tuple[tuple[int, int], ...] = ()
    rounding_multiplies: tuple[tuple[int, int, int], ...] = ()
    rounding_adds: tuple[tuple[int, int], ...] = ()
    is_float: bool = False


def operations(graph: Graph, op: Op) -> Operations:
    """What an operator of a lowered graph computes.

    Counted are sums of products, one product and one addition for each output of an epilogue
    (thresholds: one comparison each), elements of `Add` and `Mul`, and for each element of a
    softmax two additions, the product with the levels and the quotient.
    """
    products = _products(graph, op)
    multiplies: list[tuple[int, int, int]] = []
    adds: list[tuple[int, int]] = []
    rounding_multiplies: list[tuple[int, int, int]] = []
    rounding_adds: list[tuple[int, int]] = []
    size = graph.output_type(op).size
    if isinstance(op, SumOp):
        total = _sum_bits(op)
        widths = [element_bits(graph.types[value]) for value in op.inputs]
        if isinstance(op, Add):
            adds.append((size * (len(op.inputs) - 1), total))
        elif isinstance(op, Mul):
            multiplies.append((size, widths[0], widths[-1]))
        if isinstance(op.epilogue, Requantize):
            factor = max(1, *(abs(item).bit_length() for item in op.epilogue.multipliers))
            rounding_multiplies.append((size, total, factor))
            rounding_adds.append((size, total + factor))
        elif op.epilogue is not None:
            rounding_adds.append((size * len(op.epilogue.thresholds), total))
    if isinstance(op, LocalAttention2d):
        weights = op.positions * op.heads * math.prod(graph.output_type(op).shape[2:])
        levels = 0 if op.widths is None else op.widths.levels
        _add_softmax(weights, products[0].total, levels, multiplies, adds)
    elif isinstance(op, Softmax):
        bits = element_bits(graph.types[op.inputs[0]])
        _add_softmax(size, bits, op.levels, multiplies, adds)
    return Operations(
        products,
        tuple(multiplies),
        tuple(adds),
        tuple(rounding_multiplies),
        tuple(rounding_adds),
        graph.output_type(op).is_float,
    )


def _add_softmax(
    count: int,
    bits: int,
    levels: int,
    multiplies: list[tuple[int, int, int]],
    adds: list[tuple[int, int]],
) -> None:
    """`bits` of the scores; the sum of exponentials is taken as 32 bits wide."""
    adds += [(count, bits), (count, QUOTIENT_BITS)]
    factor = max(1, levels.bit_length()) if levels else FLOAT_BITS
    power = POWER_BITS if levels else FLOAT_BITS
    multiplies += [(count, power, factor), (count, QUOTIENT_BITS, QUOTIENT_BITS)]


def _sum_bits(op: SumOp) -> int:
    return FLOAT_BITS if op.accumulator is None else op.accumulator.bits


def _products(graph: Graph, op: Op) -> tuple[Products, ...]:
    output = graph.output_type(op)
    if isinstance(op, LocalAttention2d):
        return _attention(graph, op)
    if isinstance(op, BatchMatMul):
        a, b = (graph.types[value] for value in op.inputs)
        return (
            Products(
                multiplications(graph, op),
                output.size,
                stored_bits(a),
                stored_bits(b),
                _sum_bits(op),
                _is_sign(a) or _is_sign(b),
                output.is_float,
            ),
        )
    weight = weight_type(graph, op)
    if weight is None or not isinstance(op, Conv | ConvTranspose | MatMul):
        return ()
    x = graph.types[op.inputs[0]]
    return (
        Products(
            multiplications(graph, op),
            output.size,
            stored_bits(weight),
            element_bits(x),
            _sum_bits(op),
            _is_sign(weight) or _is_sign(x),
            output.is_float,
        ),
    )


def _is_sign(kind: TensorType) -> bool:
    return kind.codebook is not None and kind.codebook.kind in _SIGNS


def _attention(graph: Graph, op: LocalAttention2d) -> tuple[Products, ...]:
    """Scores, then sums of values by weights."""
    q, k, v = (graph.types[value] for value in op.inputs[:3])
    output = graph.output_type(op)
    pixels = math.prod(output.shape[2:])
    scores = op.positions * q.shape[1] * pixels, op.positions * op.heads * pixels
    sums = op.positions * v.shape[1] * pixels, output.size
    if op.widths is None or output.is_float:
        wide = FLOAT_BITS, FLOAT_BITS, FLOAT_BITS
        return Products(*scores, *wide, is_float=True), Products(*sums, *wide, is_float=True)
    relative = graph.constants[op.inputs[3]]
    keys = IntType.holding(op.key_reach(k, relative)).bits
    total = IntType.holding(op.score_reach(q, k, relative)).bits
    weight = IntType.holding(Range(0, op.widths.levels)).bits
    return (
        Products(*scores, element_bits(q), keys, total),
        Products(*sums, weight, element_bits(v), _sum_bits(op)),
    )
