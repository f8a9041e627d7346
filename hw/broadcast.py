"""One channel repeated over many."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream, element_shape
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Broadcast(Block):
    """Gives all channels of a pixel the value of the one channel that arrives.

    Latency: 1 cycle (a register for one element; `ready` passes through combinationally).
    Throughput: one output beat a cycle.

    Attributes:
        stream: what arrives, of one channel.
        channels: of the output.
        lanes: of the output, a divisor of its channels.
    """

    stream: TensorStream
    channels: int
    lanes: int

    def __post_init__(self) -> None:
        if self.stream.channels != 1:
            raise ValueError(f"{self.stream.channels} channels arrive, not 1")
        if self.channels < 1:
            raise ValueError(f"a tensor of {self.channels} channels")
        _ = self.outputs  # checks that the lanes divide the channels

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        return (replace(self.stream, channels=self.channels, lanes=self.lanes),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return (frames[0].repeat(self.channels, axis=0).reshape(-1, self.lanes),)

    def create(self) -> BroadcastComponent:
        return BroadcastComponent(self)

    @property
    def cycles(self) -> int:
        return self.outputs[0].beats

    @property
    def latency(self) -> int:
        return 1


class BroadcastComponent(wiring.Component):
    """Hardware of `Broadcast`. Ports: `i0` and `o0`."""

    def __init__(self, block: Broadcast) -> None:
        self._block = block
        (output,) = block.outputs
        super().__init__({"i0": In(block.stream.signature), "o0": Out(output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        (stream,) = self._block.outputs
        item = Signal(element_shape(stream.element), reset_less=True)
        last = Signal(init=stream.groups == 1)
        m.d.comb += [
            self.i0.ready.eq(~self.o0.valid | (last & self.o0.ready)),
            *(self.o0.payload[lane].eq(item) for lane in range(stream.lanes)),
        ]
        with m.If(self.i0.ready):
            m.d.sync += [item.eq(self.i0.payload[0]), self.o0.valid.eq(self.i0.valid)]
        if stream.groups > 1:
            position = Signal(range(stream.groups))
            with m.If(self.o0.valid & self.o0.ready):
                m.d.sync += [
                    position.eq(Mux(last, 0, position + 1)),
                    last.eq(position == stream.groups - 2),
                ]
        return m
