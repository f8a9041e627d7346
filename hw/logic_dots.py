"""Dot products without multipliers: weights select multiples of the activations."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal

from qcompile.hw.adder_tree import tree_delay
from qcompile.hw.delay import delayed
from qcompile.hw.dots import Dots, dot_range
from qcompile.hw.products import weight_offset
from qcompile.hw.streams import element_shape
from qcompile.types import TERNARY, IntType, Range

DIGIT_BITS = 2


class LogicDots(Dots):
    """`Dots` that select. Words hold weight + offset, which is never negative.

    Each digit of two bits takes 0, a, 2a or 3a of its lane; the sums of the digits are put together
    at the end, and offset * (sum of all a) is subtracted. That sum, and 3a, are formed once for all
    rows. Ternary weights (`weights` is None) have one digit 0, 1 or 2, with offset 1.
    """

    def __init__(self, rows: int, lanes: int, weights: IntType | None, activation: IntType) -> None:
        self._weights = weights
        self.delay = self.delay_of(lanes, weights)
        kind = TERNARY if weights is None else weights
        super().__init__(
            rows,
            lanes,
            DIGIT_BITS if weights is None else weights.bits,
            activation,
            dot_range(kind.range, activation, lanes),
        )

    @staticmethod
    def delay_of(lanes: int, weights: IntType | None) -> int:
        if weights is None:
            return 2 + tree_delay(lanes)
        return 3 + tree_delay(lanes) + tree_delay(-(-weights.bits // DIGIT_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offset = 1 if self._weights is None else weight_offset(self._weights)
        data_sum = self.data_sum(m, self.delay - 1) if offset else None
        multiples = [self._multiples(m, lane) for lane in range(self.lanes)]
        for row in range(self.rows):
            word = self.words[row]
            if self._weights is not None:
                word = delayed(m, word, 1, f"word{row}")
            sums, bounds = [], []
            for low in range(0, self.code_bits, DIGIT_BITS):
                bits = min(DIGIT_BITS, self.code_bits - low)
                highest = 2 if self._weights is None else (1 << bits) - 1
                one = dot_range(Range(0, highest), self.activation, 1)
                name = f"{row}_bit{low}"
                products = []
                for lane in range(self.lanes):
                    shape = element_shape(IntType.holding(one))
                    product = Signal(shape, name=f"product{name}_{lane}", reset_less=True)
                    code = word.word_select(lane, self.code_bits)[low : low + bits]
                    m.d.sync += product.eq(_selected(code, multiples[lane]))
                    products.append(product)
                sums.append(self.summed(m, products, one, f"digit{name}") << low)
                bounds.append(one.scaled(self.lanes << low))
            total = self.summed(m, sums, bounds, f"total{row}")
            late = Signal(self.sums[row].shape(), name=f"sum{row}", reset_less=True)
            m.d.sync += late.eq(total if data_sum is None else total - data_sum * offset)
            m.d.comb += self.sums[row].eq(late)
        return m

    def _multiples(self, m: Module, lane: int) -> list[Any]:
        """0, a, 2a and, where digits need it, 3a (all one cycle late then)."""
        value = self.data[lane]
        if self._weights is None:
            return [Const(0), value, value << 1]
        late = delayed(m, value, 1, f"value{lane}")
        shape = element_shape(IntType.holding(dot_range(Range(0, 3), self.activation, 1)))
        thrice = Signal(shape, name=f"thrice{lane}", reset_less=True)
        m.d.sync += thrice.eq(value + (value << 1))
        return [Const(0), late, late << 1, thrice]


def _selected(code: Any, multiples: list[Any]) -> Any:
    low = Mux(code[0], multiples[1], multiples[0])
    if len(code) == 1:
        return low
    high = multiples[2] if len(multiples) == 3 else Mux(code[0], multiples[3], multiples[2])
    return Mux(code[1], high, low)
