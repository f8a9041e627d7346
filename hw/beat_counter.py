"""Counts the beats of a part of a frame, with flags that are ready before they are needed."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class BeatCounter(wiring.Component):
    """Counts 0 .. beats - 1 and starts again. All outputs are registers.

    Ports:
        step: a beat passes in this cycle.
        value: its number.
        first, last: whether it is number 0, or beats - 1.
    """

    def __init__(self, beats: int) -> None:
        self._beats = beats
        super().__init__(
            {
                "step": In(1),
                "value": Out(range(beats)),
                "first": Out(1, init=1),
                "last": Out(1, init=int(beats == 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._beats == 1:
            m.d.comb += [self.first.eq(1), self.last.eq(1)]
            return m
        # Comparisons before the selection: `step` comes late.
        following = Signal.like(self.value)
        m.d.comb += following.eq(self.value + 1)
        with m.If(self.last):
            m.d.comb += following.eq(0)
        with m.If(self.step):
            m.d.sync += [
                self.value.eq(following),
                self.first.eq(self.last),
                self.last.eq(self.value == (self._beats - 2)),
            ]
        return m
