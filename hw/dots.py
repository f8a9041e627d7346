"""What the dot units of all strategies have in common: several rows of weights, one input."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from qcompile.hw.adder_tree import AdderTree, tree_delay
from qcompile.hw.delay import delayed
from qcompile.hw.streams import element_shape
from qcompile.types import IntType, Range


class Dots(wiring.Component):
    """sums[row] = sum over the lanes of weight[row][lane] * data[lane], every cycle.

    A free-running pipeline without valid bits or reset.

    Ports:
        data: one activation a lane.
        words: the weights of each row side by side, lane 0 lowest, as `products.encode` has them.
        sums: `delay` cycles later.
    """

    delay: int
    """Cycles from data and words to sums."""

    def __init__(
        self, rows: int, lanes: int, code_bits: int, activation: IntType, term: Range
    ) -> None:
        self.rows = rows
        self.lanes = lanes
        self.code_bits = code_bits
        self.activation = activation
        self.term = term
        super().__init__(
            {
                "data": In(ArrayLayout(element_shape(activation), lanes)),
                "words": In(ArrayLayout(unsigned(lanes * code_bits), rows)),
                "sums": Out(ArrayLayout(element_shape(IntType.holding(term)), rows)),
            }
        )

    def code(self, row: int, lane: int) -> Value:
        """The bits of one weight."""
        return self.words[row].word_select(lane, self.code_bits)

    def summed(self, m: Module, terms: list[Any], bounds: Range | list[Range], name: str) -> Any:
        """Sum of terms, of one range or of one each, by a tree that becomes submodule `name`."""
        tree = AdderTree([bounds] * len(terms) if isinstance(bounds, Range) else bounds)
        m.submodules[name] = tree
        m.d.comb += [port.eq(term) for port, term in zip(tree.inputs, terms, strict=True)]
        return tree.o

    def data_sum(self, m: Module, delay: int) -> Any:
        """Sum of the activations, `delay` cycles behind them; all rows share it."""
        lanes = [self.data[lane] for lane in range(self.lanes)]
        total = self.summed(m, lanes, self.activation.range, "data_sum")
        return delayed(m, total, delay - tree_delay(self.lanes), "data_sum")


def as_weight(code: Value, weights: IntType) -> Value:
    """Two's complement bits as a number."""
    return code.as_signed() if weights.signed else code.as_unsigned()


def dot_range(weights: Range, activation: IntType, lanes: int) -> Range:
    """Range of a sum of `lanes` products."""
    return (weights * activation.range).union(Range(0, 0)).scaled(lanes)
