"""Dot products of ternary codes from bit planes: AND, XOR and population counts."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value

from qcompile.hw.adder_tree import tree_delay
from qcompile.hw.dots import Dots, dot_range
from qcompile.hw.products import TERNARY_RANGE
from qcompile.types import TERNARY, IntType, Range

COUNTED = 4
"""Bits counted by look-up tables at once; adders count the rest."""


class TernaryDots(Dots):
    """`Dots` of weights and activations in -1..1: (products that are not 0) - 2 * (negative ones).

    Words hold weights in two's complement on two bits: the lower bit says "not 0", the upper one
    "negative". With `binary`, no weight is 0 and words hold the upper bits only; which products
    are not 0 then depends on the activations alone, and all rows share that count.

    Raises:
        ValueError: the activations are not ternary.
    """

    def __init__(self, rows: int, lanes: int, activation: IntType, binary: bool) -> None:
        if not TERNARY_RANGE.contains(activation.range):
            raise ValueError(f"activations {activation} are not ternary")
        self._binary = binary
        self.delay = self.delay_of(lanes)
        super().__init__(
            rows, lanes, 1 if binary else 2, activation, dot_range(TERNARY.range, activation, lanes)
        )

    @staticmethod
    def delay_of(lanes: int) -> int:
        return 2 + tree_delay(-(-lanes // COUNTED))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = [Value.cast(self.data[lane]) for lane in range(self.lanes)]
        present = [value[0] for value in values]
        negative = [value[-1] if self.activation.signed else Value.cast(0) for value in values]
        shared = self._count(m, present, "present") if self._binary else None
        for row in range(self.rows):
            products, minus = [], []
            for lane in range(self.lanes):
                code = self.code(row, lane)
                product = present[lane] if self._binary else present[lane] & code[0]
                products.append(product)
                minus.append(product & (negative[lane] ^ code[-1]))
            count = self._count(m, products, f"products{row}") if shared is None else shared
            below = self._count(m, minus, f"minus{row}")
            total = Signal(self.sums[row].shape(), name=f"sum{row}", reset_less=True)
            m.d.sync += total.eq(count - Cat(0, below))
            m.d.comb += self.sums[row].eq(total)
        return m

    def _count(self, m: Module, bits: list[Any], name: str) -> Any:
        """Number of ones."""
        counts, bounds = [], []
        for first in range(0, len(bits), COUNTED):
            chunk = bits[first : first + COUNTED]
            count = Signal(range(len(chunk) + 1), name=f"{name}_{first}", reset_less=True)
            m.d.sync += count.eq(_ones(chunk))
            counts.append(count)
            bounds.append(Range(0, len(chunk)))
        return self.summed(m, counts, bounds, name)


def _ones(bits: list[Any]) -> Any:
    """Number of ones among at most four bits, a function of four inputs for each bit of it."""
    a, b, c, d = [*bits, *(Value.cast(0) for _ in range(COUNTED - len(bits)))]
    all_four = a & b & c & d
    two_or_more = (a & b) | (c & d) | ((a | b) & (c | d))
    return Cat(a ^ b ^ c ^ d, two_or_more & ~all_four, all_four)
