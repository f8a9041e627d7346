"""The sum of each channel over all pixels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.streams import TensorStream, element_shape
from qcompile.types import Array, IntType

FEWEST_WORDS = 4
"""Words that a memory must have: a word is written before its turn comes again."""


@dataclass(frozen=True, slots=True)
class GlobalSum(Block):
    """[1, C, H, W] -> [1, C, 1, 1], exact sums (global average pooling).

    The sums of the channels wait in a memory of C / lanes words, or in registers if those are few.
    The first pixel of a frame replaces them, those of the last pixel leave at once. The next frame
    is added up while the results wait for a reader, until its own last pixel.

    Latency: 3 cycles, 4 with a memory. Throughput: one beat a cycle. Ports: `i0`, `o0`.

    Attributes:
        input: what is added up.
        accumulator: type of the sums; holds every sum that occurs (proven: sums never wrap).
    """

    input: TensorStream
    accumulator: IntType

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        return TensorStream(1, 1, self.input.channels, self.accumulator, self.input.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        groups, lanes = self.input.groups, self.input.lanes
        return (frame.reshape(-1, groups, lanes).sum(axis=0, dtype=np.int64),)

    def create(self) -> wiring.Component:
        return GlobalSumUnit(self)

    @property
    def in_memory(self) -> bool:
        return self.input.groups >= FEWEST_WORDS

    @property
    def stages(self) -> int:
        """Cycles from taking a beat to pushing its sum."""
        return 3 if self.in_memory else 2

    @property
    def queue_depth(self) -> int:
        """Places for all results on their way: those of the last pixel suffice if they have left
        when the next frame's come."""
        depth = self.stages + 2
        return min(depth, self.input.groups) if self.input.beats >= depth else depth

    @property
    def cycles(self) -> int:
        return self.input.beats

    @property
    def latency(self) -> int:
        return self.stages + 1

    @property
    def ram_bits(self) -> int:
        queue = OutputQueue.ram_bits(self.output.beat_bits, self.queue_depth)
        return queue + (self.input.groups * self.output.beat_bits if self.in_memory else 0)


class GlobalSumUnit(wiring.Component):
    """Hardware of `GlobalSum`."""

    def __init__(self, block: GlobalSum) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        m.submodules.queue = queue = OutputQueue(block.output.layout, block.queue_depth)
        m.submodules.group = group = BeatCounter(block.input.groups)
        m.submodules.pixel = pixel = BeatCounter(block.input.pixels)
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        taken = Signal()
        m.d.comb += [
            self.i0.ready.eq(queue.available | ~pixel.last),
            taken.eq(self.i0.valid & self.i0.ready),
            group.step.eq(taken),
            pixel.step.eq(taken & group.last),
            queue.reserve.eq(taken & pixel.last),
        ]
        complete = Signal(block.stages)
        item = Signal(block.input.layout, reset_less=True)
        first = Signal(reset_less=True)
        arrived = Signal()
        m.d.sync += [
            complete.eq(Cat(queue.reserve, complete)),
            item.eq(self.i0.payload),
            first.eq(pixel.first),
            arrived.eq(taken),
        ]
        add = self._in_memory if block.in_memory else self._in_registers
        total = add(m, item, first, arrived, group.value)
        m.d.comb += [queue.push.eq(complete[-1]), queue.item.eq(total)]
        return m

    def _added(self, before: data.View, item: data.View, first: Value) -> list[Value]:
        """The sum of each lane after `item`."""
        return [Mux(first, 0, before[lane]) + item[lane] for lane in range(self._block.input.lanes)]

    def _in_registers(
        self, m: Module, item: data.View, first: Value, arrived: Value, group: Value
    ) -> Value:
        """A ring that turns with every beat; the newest sum enters at one end."""
        layout = self._block.output.layout
        ring = [
            Signal(layout, name=f"sums{k}", reset_less=True)
            for k in range(self._block.input.groups)
        ]
        with m.If(arrived):
            for lane, total in enumerate(self._added(ring[-1], item, first)):
                m.d.sync += ring[0][lane].eq(total)
            for before, after in itertools.pairwise(ring):
                m.d.sync += after.eq(before)
        return Value.cast(ring[0])

    def _in_memory(
        self, m: Module, item: data.View, first: Value, arrived: Value, group: Value
    ) -> Value:
        """Read (two cycles: block RAM answers late), add, write: the word is free again after it.

        `arrived` is one cycle after the beat was taken, when its word leaves the memory.
        """
        block = self._block
        layout = block.output.layout
        bits = element_shape(block.accumulator)
        m.submodules.sums = memory = Memory(
            shape=layout, depth=block.input.groups, init=[], attrs={"no_rw_check": 1}
        )
        read, write = memory.read_port(), memory.write_port()
        before = Signal(layout, reset_less=True)
        total = Signal(data.ArrayLayout(bits, block.input.lanes), reset_less=True)
        later = Signal(block.input.layout, reset_less=True)
        first_later = Signal(reset_less=True)
        words = [Signal.like(group, name=f"word{k}", reset_less=True) for k in range(1, 4)]
        due = Signal(2)
        m.d.comb += [
            read.addr.eq(group),
            write.addr.eq(words[-1]),
            write.data.eq(total),
            write.en.eq(due[-1]),
        ]
        m.d.sync += [
            words[0].eq(group),
            words[1].eq(words[0]),
            words[2].eq(words[1]),
            due.eq(Cat(arrived, due)),
            before.eq(read.data),
            later.eq(item),
            first_later.eq(first),
        ]
        for lane, value in enumerate(self._added(before, later, first_later)):
            m.d.sync += total[lane].eq(value)
        return Value.cast(total)
