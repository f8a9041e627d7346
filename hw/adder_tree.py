"""A pipelined sum of many terms."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.streams import element_shape
from qcompile.types import IntType, Range


class AdderTree(wiring.Component):
    """Adds terms pair by pair, with a register behind every adder.

    A register costs nothing there: it sits in the logic cell of the adder's bit. Two levels of
    adders between registers would become a row of compressors, which is larger and slower.

    Ports:
        i0, i1, ...: the terms, in the smallest shape that holds their range.
        o: their sum `delay` cycles later, in the smallest shape that holds its range.
    """

    def __init__(self, terms: Sequence[Range]) -> None:
        if not terms:
            raise ValueError("a sum has at least one term")
        self._levels = [list(terms)]
        while len(self._levels[-1]) > 1:
            self._levels.append(_halved(self._levels[-1]))
        self.range = self._levels[-1][0]
        super().__init__(
            {f"i{index}": In(_shape(term)) for index, term in enumerate(terms)}
            | {"o": Out(_shape(self.range))}
        )

    @property
    def inputs(self) -> list[Signal]:
        return [getattr(self, f"i{index}") for index in range(len(self._levels[0]))]

    @property
    def delay(self) -> int:
        return len(self._levels) - 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms = self.inputs
        for level, ranges in enumerate(self._levels[1:], start=1):
            sums = []
            for index, bounds in enumerate(ranges):
                total = Signal(_shape(bounds), name=f"sum{level}_{index}", reset_less=True)
                pair = terms[2 * index : 2 * index + 2]
                m.d.sync += total.eq(pair[0] + pair[1] if len(pair) == 2 else pair[0])
                sums.append(total)
            terms = sums
        m.d.comb += self.o.eq(terms[0])
        return m


def tree_delay(terms: int) -> int:
    """Clock cycles through a tree of so many terms."""
    return (terms - 1).bit_length()


def _halved(terms: list[Range]) -> list[Range]:
    pairs = [terms[index : index + 2] for index in range(0, len(terms), 2)]
    return [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]


def _shape(bounds: Range) -> object:
    return element_shape(IntType.holding(bounds))
