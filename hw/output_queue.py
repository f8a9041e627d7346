"""A queue behind a pipeline that cannot stop: credits instead of a clock enable."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out


class OutputQueue(wiring.Component):
    """Takes the results of a free-running pipeline and offers them as a stream.

    A pipeline without clock enable reserves a place (`reserve`, with the number `cost` of results)
    before it begins work that will `push` results later; it may begin only while `available` is
    high, which comes from a register: `cost` places are free and not yet reserved.

    Ports:
        reserve: work begins in this cycle (only while `available`).
        available: one more piece of work may begin in this cycle.
        push, item: a result arrives; its place was reserved.
        o: the results as a stream.

    Latency: one cycle from `push` to `o.valid`. Throughput: one result a cycle.
    """

    def __init__(self, layout: data.Layout, depth: int, cost: int = 1) -> None:
        if depth < cost:
            raise ValueError(f"{depth} places are too few for work of {cost} results")
        self._layout = layout
        self._depth = depth
        self._cost = cost
        super().__init__(
            {
                "reserve": In(1),
                "available": Out(1, init=1),
                "push": In(1),
                "item": In(layout),
                "o": Out(stream.Signature(layout)),
            }
        )

    @staticmethod
    def ram_bits(width: int, depth: int) -> int:
        """Memory bits of a queue of `depth` items of `width` bits."""
        return width * depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=self._layout.size, depth=self._depth)
        m.d.comb += [
            fifo.w_en.eq(self.push),
            fifo.w_data.eq(self.item),
            self.o.valid.eq(fifo.r_rdy),
            self.o.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o.ready),
        ]
        free = Signal(range(self._depth + 1), init=self._depth)
        left = Signal.like(free)
        taken = self.o.valid & self.o.ready
        m.d.comb += left.eq(free + taken - Mux(self.reserve, self._cost, 0))
        m.d.sync += [free.eq(left), self.available.eq(left >= self._cost)]
        return m
