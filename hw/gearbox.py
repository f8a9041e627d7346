"""The same tensor with another number of lanes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.fifo import Fifo
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Gearbox(Block):
    """Regroups the channels of each pixel from `stream.lanes` to `lanes` a beat.

    Any two divisors of the channels will do. `ready`, `valid` and payload come from registers.

    * More lanes (a multiple): beats collect in a shift register; the last one completes the output
      register. Latency 1.
    * Fewer lanes (a divisor): a holding register refills a shift register. Latency 2.
    * Else: a ring of registers as long as the least common multiple, written at fixed places and
      read through a multiplexer. Latency 2.
    * Equal: a FIFO of two beats. Latency 1.

    Throughput: the narrower side passes one beat a cycle.

    Attributes:
        stream: what arrives.
        lanes: of the output, a divisor of the channels.
    """

    stream: TensorStream
    lanes: int

    def __post_init__(self) -> None:
        replace(self.stream, lanes=self.lanes)  # checks that the lanes divide the channels

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        return (replace(self.stream, lanes=self.lanes),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return (frames[0].reshape(-1, self.lanes),)

    def create(self) -> wiring.Component:
        if self.lanes == self.stream.lanes:
            return Fifo(self.stream, 2).create()
        if self.lanes % self.stream.lanes == 0:
            return WideningGearbox(self)
        if self.stream.lanes % self.lanes == 0:
            return NarrowingGearbox(self)
        return RingGearbox(self)

    @property
    def cycles(self) -> int:
        return max(self.stream.beats, self.outputs[0].beats)

    @property
    def latency(self) -> int:
        return 1 if self.lanes % self.stream.lanes == 0 else 2


class GearboxComponent(wiring.Component):
    """Ports of every gearbox: `i0` and `o0`."""

    def __init__(self, block: Gearbox) -> None:
        self._block = block
        (output,) = block.outputs
        super().__init__({"i0": In(block.stream.signature), "o0": Out(output.signature)})


class WideningGearbox(GearboxComponent):
    """Several beats become one."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ratio = self._block.lanes // self._block.stream.lanes
        bits = self._block.stream.beat_bits
        collected = Signal(bits * (ratio - 1), reset_less=True)
        output = Signal(bits * ratio, reset_less=True)
        everything = Cat(collected, self.i0.payload.as_value())
        position = Signal(range(ratio))
        last = Signal()
        push = Signal()
        m.d.comb += [
            # The output had at least one cycle to go since it became valid.
            self.i0.ready.eq(~(last & self.o0.valid)),
            push.eq(self.i0.valid & self.i0.ready),
            self.o0.payload.as_value().eq(output),
        ]
        with m.If(self.o0.ready):
            m.d.sync += self.o0.valid.eq(0)
        with m.If(push):
            m.d.sync += [
                collected.eq(everything[bits:]),
                position.eq(Mux(last, 0, position + 1)),
                last.eq(position == ratio - 2),
            ]
            with m.If(last):
                m.d.sync += [output.eq(everything), self.o0.valid.eq(1)]
        return m


class NarrowingGearbox(GearboxComponent):
    """One beat becomes several."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ratio = self._block.stream.lanes // self._block.lanes
        bits = self._block.outputs[0].beat_bits
        held = Signal(bits * ratio, reset_less=True)
        full = Signal()
        leaving = Signal(bits * ratio, reset_less=True)
        position = Signal(range(ratio))
        last = Signal()
        pop = Signal()
        load = Signal()
        m.d.comb += [
            self.i0.ready.eq(~full),
            self.o0.payload.as_value().eq(leaving[:bits]),
            pop.eq(self.o0.valid & self.o0.ready),
            load.eq(full & (~self.o0.valid | (last & self.o0.ready))),
        ]
        with m.If(~full):
            m.d.sync += [held.eq(self.i0.payload.as_value()), full.eq(self.i0.valid)]
        with m.If(pop):
            m.d.sync += [
                leaving[: -bits or None].eq(leaving[bits:]),
                position.eq(Mux(last, 0, position + 1)),
                last.eq(position == ratio - 2),
            ]
            with m.If(last):
                m.d.sync += self.o0.valid.eq(0)
        with m.If(load):
            m.d.sync += [leaving.eq(held), full.eq(0), self.o0.valid.eq(1)]
        return m


class RingGearbox(GearboxComponent):
    """Neither number of lanes divides the other one.

    In words of gcd(lanes) channels a beat brings `p` and the other side takes `q`; p * q words of
    ring hold a whole number of both, so that every arriving beat has one of q places.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        narrow = math.gcd(self._block.stream.lanes, self._block.lanes)
        p = self._block.stream.lanes // narrow
        q = self._block.lanes // narrow
        size = p * q
        push = Signal()
        take = Signal()
        enough = Signal()
        room = Signal(init=1)
        m.d.comb += [
            self.i0.ready.eq(room),
            push.eq(self.i0.valid & room),
            take.eq(enough & (~self.o0.valid | self.o0.ready)),
        ]
        held = Signal(range(size + 1))
        # Comparisons before the selection: `push` and `take` come late.
        for pushed, taken, change in ((0, 0, 0), (0, 1, -q), (1, 0, p), (1, 1, p - q)):
            most, least = size - p - change, q - change
            with m.If((push == pushed) & (take == taken)):
                m.d.sync += [
                    held.eq(held + change),
                    room.eq(1 if most >= size else held <= most),
                    enough.eq(1 if least <= 0 else held >= least),
                ]
        item = self.i0.payload.as_value()
        turn = Signal(q, init=1)
        places = [Signal(len(item), name=f"place{k}", reset_less=True) for k in range(q)]
        with m.If(push):
            m.d.sync += turn.eq(turn.rotate_left(1))
            for k, place in enumerate(places):
                with m.If(turn[k]):
                    m.d.sync += place.eq(item)
        ring = Cat(*places)
        bits = self._block.outputs[0].beat_bits
        output = Signal(bits, reset_less=True)
        source = Signal(range(p))
        m.d.comb += self.o0.payload.as_value().eq(output)
        with m.If(self.o0.ready):
            m.d.sync += self.o0.valid.eq(0)
        with m.If(take):
            m.d.sync += [self.o0.valid.eq(1), source.eq(Mux(source == p - 1, 0, source + 1))]
            with m.Switch(source):  # a part select would multiply by the number of bits
                for part in range(p):
                    with m.Case(part):
                        m.d.sync += output.eq(ring[part * bits : (part + 1) * bits])
        return m
