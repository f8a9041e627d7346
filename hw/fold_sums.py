"""Sums over the beats of a fold, as a stream."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.delay import delayed
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.streams import element_shape
from qcompile.types import IntType, Range


class FoldSums(wiring.Component):
    """Accumulates what a pipeline without clock enable computes from each beat, fold by fold.

    Owns the valid bits of the pipeline and the credits of its results: beats may be accepted in
    the cycles in which `ready` is high. The queue holds all folds that can be under way, so that a
    beat is accepted in every cycle as long as results are taken in time.

    Ports:
        ready: a beat may be accepted in this cycle.
        accept, last: a beat is accepted; it is the last of its fold.
        terms: what each lane adds for the beat that was accepted `delay` cycles ago.
        o: the sums of the lanes of each fold; the first cycle in which it is valid is
            `latency_behind(delay)` cycles after its last beat was accepted.
    """

    def __init__(
        self, lanes: int, term: Range, accumulator: IntType, delay: int, fold_beats: int
    ) -> None:
        self._delay = delay
        self._fold_beats = fold_beats
        self._accumulator = accumulator
        self._term = element_shape(IntType.holding(term))
        self._sums = data.ArrayLayout(element_shape(accumulator), lanes)
        super().__init__(
            {
                "ready": Out(1),
                "accept": In(1),
                "last": In(1),
                "terms": In(data.ArrayLayout(self._term, lanes)),
                "o": Out(stream.Signature(self._sums)),
            }
        )

    @staticmethod
    def latency_behind(delay: int) -> int:
        """Cycles from accepting the last beat of a fold to offering its sums."""
        return delay + 2

    @staticmethod
    def queue_depth(delay: int, fold_beats: int) -> int:
        """Places: one, and those for the folds that begin before a credit is back.

        With fewer, a consumer that takes a sum every fold_beats cycles would have to wait: its
        credit lets a fold begin after one cycle, and the sums arrive delay + 1 cycles behind the
        last beat of that fold.
        """
        return -(-(delay + 2) // fold_beats) + 1

    @staticmethod
    def ram_bits(lanes: int, accumulator: IntType, delay: int, fold_beats: int) -> int:
        depth = FoldSums.queue_depth(delay, fold_beats)
        return OutputQueue.ram_bits(lanes * accumulator.bits, depth)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.queue_depth(self._delay, self._fold_beats)
        m.submodules.queue = queue = OutputQueue(self._sums, depth)
        ends = Signal()
        m.d.comb += [ends.eq(self.accept & self.last), queue.reserve.eq(ends)]
        m.d.comb += self.ready.eq(queue.available)
        valid = delayed(m, self.accept, self._delay, "valid", reset=True)
        last = delayed(m, ends, self._delay, "last", reset=True)
        done = Signal()
        m.d.sync += done.eq(last)
        first = Signal(init=1)
        if self._fold_beats > 1:
            with m.If(valid):
                m.d.sync += first.eq(last)
        for lane in range(self._sums.length):
            term = self.terms[lane]
            total = Signal(self._accumulator.bits, name=f"total{lane}", reset_less=True)
            if self._fold_beats > 1:
                with m.If(valid):
                    m.d.sync += total.eq(Mux(first, 0, total) + term)
            else:
                m.d.sync += total.eq(term)
            m.d.comb += Value.cast(queue.item[lane]).eq(total)
        m.d.comb += queue.push.eq(done)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m
