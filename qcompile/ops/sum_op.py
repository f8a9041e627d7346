"""Base of the operators whose integer form is an exact sum with one epilogue (rules 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.numerics import Epilogue
from qcompile.ops.activation import IDENTITY, Activation
from qcompile.types import Array, IntType, Range, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class SumOp(Op):
    """An operator that sums products, then applies one function to the sum.

    In the float and quantized stages the result is `activation(sum + bias)`. Lowering replaces
    `activation` (and bias inputs) by the integer `epilogue`, and `accumulator` is the proven type
    of the sum. An operator without `epilogue` in the integer stage is part of a float island.
    """

    activation: Activation = IDENTITY
    epilogue: Epilogue | None = None
    accumulator: IntType | None = None

    def channel_axis(self, rank: int) -> int:
        """The axis of the output that per-channel constants of the epilogue run along."""
        return 1

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        """Every value the integer sum, and any partial sum of it in any order, can take.

        Args:
            types: the (integer) type of each input.
            constants: the data of each input that is a constant, else None.
        """
        raise NotImplementedError(self.kind)


def weighted_reach(positive: Array, negative: Array, codes: Range) -> Range:
    """Order-independent bound of sums of w * x, given per output the sums of the positive and of
    the negative weights (contract, rule 2): partial sums of either sign stay inside."""
    low = min(codes.low, 0)
    high = max(codes.high, 0)
    largest = max(
        (int(p) * high + int(n) * low for p, n in zip(positive, negative, strict=True)), default=0
    )
    smallest = min(
        (int(p) * low + int(n) * high for p, n in zip(positive, negative, strict=True)), default=0
    )
    return Range(min(smallest, 0), max(largest, 0))
