"""Which kernel computes each operator: an explicit table, decided by proven ranges.

Before: an operator with types.          After: operator name -> `KernelChoice`.

    Conv u6 -> u6, weights i4, accumulator i17   -> conv: int16 lines, int32 sums, cost 1 a product
    Conv u16 -> ..., accumulator i40             -> conv: int32 lines, int64 sums, cost 4 a product

The rows of `CONV_KERNELS` are tried cheapest first; a SIMD variant becomes one more row with its
own range predicate, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op
from qcompile.numerics import Requantize
from qcompile.ops import BatchMatMul, Conv, ConvTranspose, MatMul, SumOp
from qcompile.types import Array, Range, TensorType

INT16 = Range(-(1 << 15), (1 << 15) - 1)
INT32 = Range(-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is proven of one operator: everything a row of the table may ask."""

    inputs: Range
    weights: Range
    sums: Range
    grouped_alone: bool


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """A row of the kernel table.

    Attributes:
        kernel: stem of the C template.
        line: C type of the widened inputs and the unpacked weights.
        sums: C type of the accumulators.
        cost: rough time of one product, relative to the fastest row.
        fits: the range predicate; the row computes exactly whenever it holds.
    """

    kernel: str
    line: str
    sums: str
    cost: float
    fits: Callable[[Facts], bool]


def _narrow(facts: Facts) -> bool:
    return INT16.contains(facts.inputs) and INT16.contains(facts.weights)


def _wide(facts: Facts) -> bool:
    return INT32.contains(facts.inputs) and INT32.contains(facts.weights)


def _short_sums(facts: Facts) -> bool:
    return INT32.contains(facts.sums)


CONV_KERNELS: tuple[KernelChoice, ...] = (
    KernelChoice(
        "conv_depthwise",
        "int16_t",
        "int32_t",
        1.0,
        lambda facts: facts.grouped_alone and _narrow(facts) and _short_sums(facts),
    ),
    KernelChoice(
        "conv_depthwise",
        "int32_t",
        "int32_t",
        2.0,
        lambda facts: facts.grouped_alone and _wide(facts) and _short_sums(facts),
    ),
    KernelChoice(
        "conv_depthwise",
        "int32_t",
        "int64_t",
        4.0,
        lambda facts: facts.grouped_alone and _wide(facts),
    ),
    KernelChoice("conv_depthwise", "int64_t", "int64_t", 8.0, lambda facts: facts.grouped_alone),
    KernelChoice(
        "conv", "int16_t", "int32_t", 1.0, lambda facts: _narrow(facts) and _short_sums(facts)
    ),
    KernelChoice(
        "conv", "int32_t", "int32_t", 3.5, lambda facts: _wide(facts) and _short_sums(facts)
    ),
    KernelChoice("conv", "int16_t", "int64_t", 3.0, _narrow),
    KernelChoice("conv", "int32_t", "int64_t", 4.0, _wide),
    KernelChoice("conv", "int64_t", "int64_t", 8.0, lambda facts: True),
)
"""In order of preference for the operators that multiply by a weight tensor."""

FLOAT_KERNELS: Mapping[bool, KernelChoice] = {
    True: KernelChoice("conv_depthwise", "float", "float", 8.0, lambda facts: True),
    False: KernelChoice("conv", "float", "float", 8.0, lambda facts: True),
}
"""Float islands: by whether every group is one channel wide."""


def sums_type(op: SumOp) -> str:
    """The C type of an operator's exact sum: 32 bits if the proven accumulator fits."""
    if op.epilogue is None or op.accumulator is None:
        return "float"
    return "int32_t" if INT32.contains(op.accumulator.range) else "int64_t"


def product_type(op: SumOp) -> str:
    """The C type of `a * m + b` in the epilogue."""
    epilogue = op.epilogue
    if not isinstance(epilogue, Requantize):
        return sums_type(op)
    # C does not define shifts by the width of the type or more.
    short = INT32.contains(epilogue.product_range()) and max(epilogue.shifts) < 32
    return "int32_t" if short else "int64_t"


@dataclass(frozen=True)
class ChooseKernels:
    """Chooses a row of the table for every operator that has weights."""

    def run(self, graph: Graph) -> Mapping[str, KernelChoice]:
        """Operator name -> its kernel, for `Conv`, `ConvTranspose` and `MatMul`.

        Raises:
            GraphError: no row fits.
        """
        return {
            op.name: choose(op, graph.input_types(op), graph.constants[op.inputs[1]])
            for op in graph.ops
            if isinstance(op, Conv | ConvTranspose | MatMul)
        }


def choose_product(op: BatchMatMul, types: Sequence[TensorType]) -> KernelChoice:
    """The same for two computed factors."""
    if op.epilogue is None or op.accumulator is None:
        return FLOAT_KERNELS[False]
    zero = Range(0, 0)
    facts = Facts(
        types[0].codes.union(zero), types[1].codes.union(zero), op.accumulator.range, False
    )
    return next(row for row in CONV_KERNELS if row.fits(facts))


def choose(op: Op, types: tuple[TensorType, ...], weights: Array) -> KernelChoice:
    """The first row of the table whose predicate holds."""
    alone = (
        isinstance(op, Conv)
        and op.groups == types[0].shape[1]
        and types[1].shape[:2] == (op.groups, 1)
        and op.groups > 1
    )
    if not isinstance(op, SumOp) or op.epilogue is None or op.accumulator is None:
        return FLOAT_KERNELS[alone]
    facts = Facts(
        inputs=types[0].codes.union(Range(0, 0)),
        weights=Range(min(0, int(weights.min())), max(0, int(weights.max()))),
        sums=op.accumulator.range,
        grouped_alone=alone,
    )
    for row in CONV_KERNELS:
        if row.fits(facts):
            return row
    raise GraphError(f"{op.label()}: no C kernel fits its ranges")
