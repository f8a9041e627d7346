"""Dot products with one multiplier for each product."""

from __future__ import annotations

from amaranth.hdl import Module, Signal

from qcompile.hw.adder_tree import tree_delay
from qcompile.hw.dots import Dots, as_weight, dot_range
from qcompile.hw.streams import element_shape
from qcompile.types import IntType


class MultiplierDots(Dots):
    """`Dots` by multiplication. Words hold weights in two's complement."""

    def __init__(self, rows: int, lanes: int, weights: IntType, activation: IntType) -> None:
        self._weights = weights
        self.delay = self.delay_of(lanes)
        super().__init__(
            rows, lanes, weights.bits, activation, dot_range(weights.range, activation, lanes)
        )

    @staticmethod
    def delay_of(lanes: int) -> int:
        return 1 + tree_delay(lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bounds = dot_range(self._weights.range, self.activation, 1)
        shape = element_shape(IntType.holding(bounds))
        for row in range(self.rows):
            products = []
            for lane in range(self.lanes):
                product = Signal(shape, name=f"product{row}_{lane}", reset_less=True)
                weight = as_weight(self.code(row, lane), self._weights)
                m.d.sync += product.eq(self.data[lane] * weight)
                products.append(product)
            total = self.summed(m, products, bounds, f"tree{row}")
            m.d.comb += self.sums[row].eq(total)
        return m
