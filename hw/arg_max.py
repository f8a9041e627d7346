"""The channel of the largest element of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.streams import TensorStream, element_shape
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, slots=True)
class ArgMax(Block):
    """Index of the largest channel; the first of equal ones, or the last with `last`.

    A tree over the lanes, one level a stage, then the best beat so far. Latency: 4 cycles and one
    for each level. Throughput: one beat a cycle. Ports: `i0`, `o0` (one channel).
    """

    input: TensorStream
    element: IntType
    last: bool = False

    def __post_init__(self) -> None:
        indices = Range(0, self.input.channels - 1)
        if not self.element.range.contains(indices):
            raise ValueError(f"{self.element} does not hold {indices.low}..{indices.high}")

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        return TensorStream(self.input.height, self.input.width, 1, self.element)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        pixels = frame.reshape(-1, self.input.channels)
        if self.last:
            index = self.input.channels - 1 - np.argmax(pixels[:, ::-1], axis=1)
        else:
            index = np.argmax(pixels, axis=1)
        return (index.astype(np.int64)[:, None],)

    def create(self) -> wiring.Component:
        return ArgMaxUnit(self)

    @property
    def levels(self) -> int:
        """Levels of the tree over the lanes."""
        return (self.input.lanes - 1).bit_length()

    @property
    def stages(self) -> int:
        """Cycles from taking a beat to pushing its result: input register, tree, number of the
        channel, best so far."""
        return 1 + self.levels + 1 + 1

    @property
    def queue_depth(self) -> int:
        """Places for all results on their way, so that none waits for a place."""
        return -(-(self.stages + 2) // self.input.groups)

    @property
    def cycles(self) -> int:
        return self.input.beats

    @property
    def latency(self) -> int:
        return self.stages + 1

    @property
    def ram_bits(self) -> int:
        return OutputQueue.ram_bits(self.output.beat_bits, self.queue_depth)


class ArgMaxUnit(wiring.Component):
    """Hardware of `ArgMax`. A beat that is not the last of its pixel is taken even if the queue is
    full."""

    def __init__(self, block: ArgMax) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        m.submodules.queue = queue = OutputQueue(block.output.layout, block.queue_depth)
        m.submodules.group = group = BeatCounter(block.input.groups)
        # Counts again where the beats leave the tree, and where they are compared.
        m.submodules.left = left = BeatCounter(block.input.groups)
        m.submodules.compared = compared = BeatCounter(block.input.groups)
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        taken = Signal()
        arrived = Signal(block.stages)
        complete = Signal(block.stages)
        m.d.comb += [
            self.i0.ready.eq(queue.available | ~group.last),
            taken.eq(self.i0.valid & self.i0.ready),
            group.step.eq(taken),
            queue.reserve.eq(taken & group.last),
            left.step.eq(arrived[-3]),
            compared.step.eq(arrived[-2]),
            queue.push.eq(complete[-1]),
        ]
        m.d.sync += [
            arrived.eq(Cat(taken, arrived)),
            complete.eq(Cat(queue.reserve, complete)),
        ]
        value, lane = self._tree(m)
        shape = element_shape(block.input.element)
        best = Signal(shape, reset_less=True)
        best_channel = Signal(range(block.input.channels), reset_less=True)
        candidate = Signal(shape, reset_less=True)
        channel = Signal.like(best_channel)
        start = Signal(range(block.input.channels))
        m.d.sync += [candidate.eq(value), channel.eq(start + lane)]
        with m.If(arrived[-3]):
            m.d.sync += start.eq(Mux(left.last, 0, start + block.input.lanes))
        better = Signal()
        m.d.comb += better.eq(compared.first | self._exceeds(candidate, best))
        with m.If(arrived[-2] & better):
            m.d.sync += [best.eq(candidate), best_channel.eq(channel)]
        m.d.comb += queue.item[0].eq(best_channel)
        return m

    def _exceeds(self, later: Value, earlier: Value) -> Value:
        """Whether a later channel wins."""
        return later >= earlier if self._block.last else later > earlier

    def _tree(self, m: Module) -> tuple[Value, Value]:
        """The largest of the beat and its lane, `levels` + 1 registers after the input."""
        item = Signal(self._block.input.layout, reset_less=True)
        m.d.sync += item.eq(self.i0.payload)
        entries: list[tuple[Value, Value]] = [
            (Value.cast(item[lane]), Const(0, 0)) for lane in range(self._block.input.lanes)
        ]
        for level in range(self._block.levels):
            following = []
            for first in range(0, len(entries), 2):
                # Lanes that are missing at the end never win.
                value, lane = entries[first]
                wins: Value = Const(0, 1)
                if first + 1 < len(entries):
                    other, other_lane = entries[first + 1]
                    wins = self._exceeds(other, value)
                    value = Mux(wins, other, value)
                    lane = Mux(wins, other_lane, lane)
                name = f"level{level}_{first // 2}"
                largest = Signal(
                    element_shape(self._block.input.element), name=name, reset_less=True
                )
                index = Signal(level + 1, name=f"{name}_lane", reset_less=True)
                m.d.sync += [largest.eq(value), index.eq(Cat(lane, wins))]
                following.append((largest, index))
            entries = following
        return entries[0]
