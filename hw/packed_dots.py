"""Dot products with two rows of weights in each multiplier."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, signed

from qcompile.hw.adder_tree import tree_delay
from qcompile.hw.delay import delayed
from qcompile.hw.dots import Dots, as_weight, dot_range
from qcompile.hw.multiplier_dots import MultiplierDots
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize, Packing, pack, weight_offset
from qcompile.hw.streams import element_shape
from qcompile.types import IntType


class PackedDots(Dots):
    """`Dots` of pairs of rows that share multipliers as `Packing` describes.

    Words of the even rows (the lower ones) hold weights plus the offset, those of the odd rows, and
    of a last row without partner, two's complement. The latter has multipliers of its own.

    Raises:
        ValueError: two weights do not fit one multiplier.
    """

    def __init__(
        self,
        rows: int,
        lanes: int,
        weights: IntType,
        activation: IntType,
        size: MultiplierSize = MULTIPLIER_18,
    ) -> None:
        packing = pack(weights, activation, lanes, size)
        if packing is None:
            raise ValueError(
                f"two weights {weights} times {activation} do not fit a {size.wide} x "
                f"{size.narrow} multiplier"
            )
        self._packing: Packing = packing
        self._weights = weights
        self.delay = self.delay_of(lanes, weights, activation, size)
        super().__init__(
            rows, lanes, weights.bits, activation, dot_range(weights.range, activation, lanes)
        )

    @staticmethod
    def delay_of(
        lanes: int, weights: IntType, activation: IntType, size: MultiplierSize = MULTIPLIER_18
    ) -> int:
        packing = pack(weights, activation, lanes, size)
        assert packing is not None
        return 1 + tree_delay(lanes) + packing.borrow + weights.signed

    def elaborate(self, platform: object) -> Module:
        m = Module()
        data_sum = None
        if self._weights.signed:
            data_sum = self.data_sum(m, self.delay - 1)
        for row in range(0, self.rows - 1, 2):
            self._pair(m, row, data_sum)
        if self.rows % 2:
            m.submodules.single = single = MultiplierDots(
                1, self.lanes, self._weights, self.activation
            )
            row = self.rows - 1
            m.d.comb += [single.data.eq(self.data), single.words[0].eq(self.words[row])]
            late = delayed(m, single.sums[0], self.delay - single.delay, "single_sum")
            m.d.comb += self.sums[row].eq(late)
        return m

    def _pair(self, m: Module, row: int, data_sum: Any) -> None:
        """Sums of the rows `row` and `row + 1`."""
        packing = self._packing
        low_bounds, high_bounds = packing.low, packing.high
        bounds = high_bounds.scaled(1 << packing.split) + low_bounds
        shape = element_shape(IntType.holding(bounds))
        products: list[Any] = []
        for lane in range(self.lanes):
            product = Signal(shape, name=f"product{row}_{lane}", reset_less=True)
            lower = Signal(packing.split, name=f"lower{row}_{lane}")
            m.d.comb += lower.eq(self.code(row, lane))
            factor = as_weight(Cat(lower, self.code(row + 1, lane)), self._weights)
            m.d.sync += product.eq(self.data[lane] * factor)
            products.append(product)
        step = 1 << packing.levels
        groups = [products[first : first + step] for first in range(0, self.lanes, step)]
        lows, highs = [], []
        for index, group in enumerate(groups):
            name = f"packed{row}_{index}"
            total = self.summed(m, group, bounds, name)
            total = delayed(m, total, packing.levels - tree_delay(len(group)), name)
            low, high = self._split(m, total, len(group), name)
            lows.append(low)
            highs.append(high)
        low = self.summed(m, lows, [packing.low.scaled(len(g)) for g in groups], f"low{row}")
        high = self.summed(m, highs, [packing.high.scaled(len(g)) for g in groups], f"high{row}")
        if data_sum is not None:
            lower_sum = Signal(self.sums[row].shape(), name=f"sum{row}", reset_less=True)
            m.d.sync += lower_sum.eq(low - data_sum * weight_offset(self._weights))
            low, high = lower_sum, delayed(m, high, 1, f"sum{row + 1}")
        m.d.comb += [self.sums[row].eq(low), self.sums[row + 1].eq(high)]

    def _split(self, m: Module, total: Any, count: int, name: str) -> tuple[Any, Any]:
        """The two fields of a sum of `count` packed products."""
        packing = self._packing
        low, high = Value.cast(total)[: packing.split], Value.cast(total)[packing.split :]
        if packing.high.low < 0:
            high = high.as_signed()
        if not packing.borrow:
            return low, high
        late_low = Signal(signed(packing.split), name=f"{name}_low", reset_less=True)
        shape = element_shape(IntType.holding(packing.high.scaled(count)))
        late_high = Signal(shape, name=f"{name}_high", reset_less=True)
        m.d.sync += [late_low.eq(low), late_high.eq(high + low[-1])]
        return late_low, late_high
