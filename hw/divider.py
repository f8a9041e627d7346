"""Rounded-down quotients of unsigned integers, one bit a step."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.delay import delayed


class Divider(wiring.Component):
    """floor(numerator / denominator), by restoring division: exact.

    A row of stages without flow control. Each subtracts the denominator `interval` times, once a
    cycle, and hands over to the next: with interval 1 a quotient leaves in every cycle, with a
    larger one there are so many times fewer stages.

    Ports:
        start: a division begins; at least `interval` cycles after the one before.
        numerator, denominator: of it. The quotient must be below 2**bits.
        quotient: `latency` cycles later, for one cycle.

    Args:
        bits: of the quotient.
        denominator_bits: of the denominator.
        interval: cycles from one division to the next.
    """

    def __init__(self, bits: int, denominator_bits: int, interval: int = 1) -> None:
        self._bits = bits
        self._interval = interval
        # Steps that are too many give leading zeros.
        self._steps = self.latency_of(bits, interval)
        super().__init__(
            {
                "start": In(1),
                "numerator": In(unsigned(bits + denominator_bits)),
                "denominator": In(unsigned(denominator_bits)),
                "quotient": Out(unsigned(bits)),
            }
        )

    @staticmethod
    def latency_of(bits: int, interval: int) -> int:
        """Cycles from `start` to the quotient."""
        return -(-bits // interval) * interval

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.denominator)
        # Of the numerator, the remainder has the upper bits; its lower bits make room for those of
        # the quotient, one by one.
        lower: Any = self.numerator[: self._steps]
        remainder: Any = self.numerator[self._steps :]
        denominator: Any = self.denominator
        load: Any = self.start
        for stage in range(self._steps // self._interval):
            own = [
                Signal(size, name=f"{name}{stage}", reset_less=True)
                for name, size in (
                    ("remainder", width),
                    ("lower", self._steps),
                    ("denominator", width),
                )
            ]
            given = (remainder, lower, denominator)
            if self._interval > 1:
                given = tuple(Mux(load, new, old) for new, old in zip(given, own, strict=True))
                load = delayed(m, load, self._interval, f"load{stage}", reset=True)
            rest = Cat(given[1][-1], given[0])
            left = Signal(width + 2, name=f"left{stage}")
            m.d.comb += left.eq(rest - given[2])
            fits = ~left[-1]
            m.d.sync += [
                own[0].eq(Mux(fits, left, rest)),
                own[1].eq(Cat(fits, given[1][:-1])),
                own[2].eq(given[2]),
            ]
            remainder, lower, denominator = own
        m.d.comb += self.quotient.eq(lower)
        return m
