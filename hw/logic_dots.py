"""Dot products of ternary weights with any activations, without multipliers."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from qcompile.hw.adder_tree import tree_delay
from qcompile.hw.dots import Dots, dot_range
from qcompile.hw.streams import element_shape
from qcompile.types import TERNARY, IntType, Range


class LogicDots(Dots):
    """`Dots` that select. Words hold weight + 1 in two bits.

    The sum of (weight + 1) * a takes 0, a or 2a of each lane: one look-up table a bit. The sum of
    all a is subtracted at the end; it is formed once for all rows.
    """

    def __init__(self, rows: int, lanes: int, activation: IntType) -> None:
        self.delay = self.delay_of(lanes)
        super().__init__(rows, lanes, 2, activation, dot_range(TERNARY.range, activation, lanes))

    @staticmethod
    def delay_of(lanes: int) -> int:
        return 2 + tree_delay(lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        data_sum = self.data_sum(m, self.delay - 1)
        bounds = dot_range(Range(0, 2), self.activation, 1)
        shape = element_shape(IntType.holding(bounds))
        for row in range(self.rows):
            products = []
            for lane in range(self.lanes):
                product = Signal(shape, name=f"product{row}_{lane}", reset_less=True)
                code, value = self.code(row, lane), Value.cast(self.data[lane])
                once = Signal(shape, name=f"once{row}_{lane}")
                twice = Signal(shape, name=f"twice{row}_{lane}")
                m.d.comb += [once.eq(value), twice.eq(Cat(0, value))]
                m.d.sync += product.eq(Mux(code[1], twice, Mux(code[0], once, 0)))
                products.append(product)
            total = self.summed(m, products, bounds, f"tree{row}")
            late = Signal(self.sums[row].shape(), name=f"sum{row}", reset_less=True)
            m.d.sync += late.eq(total - data_sum)
            m.d.comb += self.sums[row].eq(late)
        return m
