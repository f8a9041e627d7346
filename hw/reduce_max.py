"""The largest element of each window."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.streams import TensorStream, WindowStream, element_shape
from qcompile.types import Array

STAGES = 2
"""Cycles from taking a beat to pushing its result: input register, running maximum."""


@dataclass(frozen=True, slots=True)
class ReduceMax(Block):
    """Maximum over the beats of each fold, lane by lane (max pooling).

    Padding of the window has to be the lowest code. Latency: 3 cycles. Throughput: one beat a
    cycle. Ports: `i0`, `o0`.
    """

    input: WindowStream
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height * self.width != self.input.pixels:
            raise ValueError(
                f"{self.input.pixels} windows do not make {self.height} x {self.width} pixels"
            )

    @property
    def inputs(self) -> tuple[WindowStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        window = self.input
        channels = window.folds * window.lanes
        return TensorStream(self.height, self.width, channels, window.element, window.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        return (frame.reshape(-1, self.input.fold_beats, self.input.lanes).max(axis=1),)

    def create(self) -> wiring.Component:
        return ReduceMaxUnit(self)

    @property
    def queue_depth(self) -> int:
        """Places for all results on their way, so that none waits for a place."""
        return -(-(STAGES + 2) // self.input.fold_beats)

    @property
    def cycles(self) -> int:
        return self.input.beats

    @property
    def latency(self) -> int:
        return STAGES + 1

    @property
    def ram_bits(self) -> int:
        return OutputQueue.ram_bits(self.output.beat_bits, self.queue_depth)


class ReduceMaxUnit(wiring.Component):
    """Hardware of `ReduceMax`. It counts the beats of a fold itself: a beat that is not the last
    one is taken even if the queue is full."""

    def __init__(self, block: ReduceMax) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        m.submodules.queue = queue = OutputQueue(block.output.layout, block.queue_depth)
        m.submodules.beat = beat = BeatCounter(block.input.fold_beats)
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        taken = Signal()
        m.d.comb += [
            self.i0.ready.eq(queue.available | ~beat.last),
            taken.eq(self.i0.valid & self.i0.ready),
            beat.step.eq(taken),
            queue.reserve.eq(taken & beat.last),
        ]
        layout = data.ArrayLayout(element_shape(block.input.element), block.input.lanes)
        item = Signal(layout, reset_less=True)
        first = Signal(reset_less=True)
        arrived = Signal()
        complete = Signal(STAGES)
        m.d.sync += [
            item.eq(self.i0.payload.data),
            first.eq(beat.first),
            arrived.eq(taken),
            complete.eq(Cat(queue.reserve, complete)),
        ]
        largest = Signal(layout, reset_less=True)
        for lane in range(block.input.lanes):
            larger = Signal(name=f"larger{lane}")
            m.d.comb += larger.eq(first | (item[lane] > largest[lane]))
            with m.If(arrived):
                m.d.sync += largest[lane].eq(Mux(larger, item[lane], largest[lane]))
        m.d.comb += [queue.push.eq(complete[-1]), queue.item.eq(largest)]
        return m
