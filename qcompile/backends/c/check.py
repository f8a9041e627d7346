"""What the C back end refuses, all at once."""

from __future__ import annotations

from collections.abc import Iterator

from qcompile.backends.c.table import PLANNERS
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.numerics import Requantize
from qcompile.ops import (
    Add,
    Affine,
    BatchMatMul,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LayerNorm,
    MatMul,
    Mul,
    Pointwise,
    Rescale,
    Softmax,
    SumOp,
)
from qcompile.types import IntType, Range

LARGEST_ELEMENTS = 1 << 31
INT64 = Range(-(1 << 63), (1 << 63) - 1)


def unsupported(graph: Graph) -> list[Unsupported]:
    """Every operator of an integer graph that has no kernel here, with a way out."""
    return [item for op in graph.ops for item in _problems(graph, op)]


def _problems(graph: Graph, op: Op) -> Iterator[Unsupported]:
    def refuse(reason: str, advice: str) -> Unsupported:
        return Unsupported(op.kind, op.name, reason, advice)

    row = PLANNERS.get(type(op))
    if row is None:
        yield refuse("has no C kernel", "use --target sim, or replace the operator")
        return
    kinds = [graph.types[value] for value in (*op.inputs, *op.outputs)]
    rank = max(kind.rank for kind in kinds)
    if rank > row.longest_rank:
        yield refuse(
            f"{row.reason}: {rank} axes, at most {row.longest_rank}",
            "use --target sim, or a model of 2-D slices",
        )
    if max(kind.size for kind in kinds) >= LARGEST_ELEMENTS:
        yield refuse("a tensor has 2**31 elements or more", "use a smaller --input-shape")
    out = graph.output_type(op)
    if isinstance(op, Pointwise) and isinstance(out.element, IntType):
        yield refuse("has an integer output but is no table", "lower the graph first")
    if isinstance(op, SumOp):
        yield from _sum_problems(graph, op)
    if isinstance(op, Softmax) and isinstance(out.element, IntType) and not op.table:
        yield refuse("has no table of exponentials", "lower the graph first")


def _sum_problems(graph: Graph, op: SumOp) -> Iterator[Unsupported]:
    integer = isinstance(graph.output_type(op).element, IntType)

    def refuse(reason: str, advice: str) -> Unsupported:
        return Unsupported(op.kind, op.name, reason, advice)

    if integer and (op.epilogue is None or op.accumulator is None):
        yield refuse("has integer output but no epilogue or accumulator", "lower the graph first")
        return
    if integer and op.accumulator is not None and not INT64.contains(op.accumulator.range):
        yield refuse(
            f"its sums need {op.accumulator.bits} bits, C has 64", "use fewer --abits or --wbits"
        )
    if isinstance(op.epilogue, Requantize) and not INT64.contains(op.epilogue.product_range()):
        yield refuse("the products of its epilogue exceed 64 bits", "use fewer --abits")
    if not integer and isinstance(
        op, Conv | ConvTranspose | MatMul | BatchMatMul | Rescale | Add | Mul | Div | Affine
    ):
        mixed = [value for value in op.inputs if not graph.types[value].is_float]
        if any(value not in graph.constants for value in mixed):
            yield refuse("mixes float output with integer input", "put a Dequantize before it")
    if integer and isinstance(op, GroupNorm | LayerNorm) and op.widths is not None:
        kind = graph.types[op.inputs[0]]
        count = kind.size // op.groups if isinstance(op, GroupNorm) else kind.shape[op.axis]
        spread = kind.integer.high - kind.integer.low
        variance = (count * spread) ** 2 // 4
        # |N * x - S1| is at most sqrt(N * V), so the product with the inverse is at most this:
        product_bits = op.widths.inverse_bits - op.widths.root_bits + count.bit_length() // 2 + 1
        if (
            (variance << (2 * op.widths.root_bits)) + op.widths.epsilon >= 1 << 64
            or product_bits > 63
            or op.widths.inverse_bits > 62
        ):
            yield refuse(
                f"the norm of {count} codes needs more than 64 bits",
                "use fewer --abits before the norm, or a smaller --input-shape",
            )
