"""A regular part of the channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class SliceChannels(Block):
    """Keeps channels start, start + step, ... before `stop` of each pixel, as Python's range.

    Beats without such a channel are dropped. All others must hold channels in the same lanes, which
    become the lanes of the output, and in ascending order of beats. So a step of 1 needs whole
    beats; one lane always does if the step is positive; and where a pixel is one beat, any step.

    Latency: 1 cycle (an output register; `ready` passes through combinationally). Throughput: one
    input beat a cycle.

    Attributes:
        stream: what arrives.
        start, stop, step: a range within the channels, not empty; `step` may be negative.
    """

    stream: TensorStream
    start: int
    stop: int
    step: int = 1

    def __post_init__(self) -> None:
        kept = range(self.start, self.stop, self.step)
        if not kept or min(kept) < 0 or max(kept) >= self.stream.channels:
            raise ValueError(f"{kept} of {self.stream.channels} channels")
        expected = [self.groups[0] + k * self.stride for k in range(len(self.groups))]
        order = [group * self.stream.lanes + lane for group in expected for lane in self.lanes]
        if self.stride < 1 or order != list(kept):
            raise ValueError(f"{kept} does not keep the same of {self.stream.lanes} lanes")

    @property
    def groups(self) -> tuple[int, ...]:
        """Beats of a pixel that are kept."""
        kept = range(self.start, self.stop, self.step)
        return tuple(dict.fromkeys(channel // self.stream.lanes for channel in kept))

    @property
    def stride(self) -> int:
        """Distance of the beats that are kept."""
        return self.groups[1] - self.groups[0] if len(self.groups) > 1 else 1

    @property
    def lanes(self) -> tuple[int, ...]:
        """Lanes that are kept, of beats that are."""
        kept = range(self.start, self.stop, self.step)
        size = self.stream.lanes
        return tuple(channel % size for channel in kept if channel // size == self.groups[0])

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        count = len(range(self.start, self.stop, self.step))
        return (replace(self.stream, channels=count, lanes=len(self.lanes)),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        pixels = frames[0].reshape(self.stream.pixels, self.stream.channels)
        kept = pixels[:, list(range(self.start, self.stop, self.step))]
        return (kept.reshape(-1, len(self.lanes)),)

    def create(self) -> SliceChannelsComponent:
        return SliceChannelsComponent(self)

    @property
    def cycles(self) -> int:
        return self.stream.beats

    @property
    def latency(self) -> int:
        return 1


class SliceChannelsComponent(wiring.Component):
    """Hardware of `SliceChannels`. Ports: `i0` and `o0`."""

    def __init__(self, block: SliceChannels) -> None:
        self._block = block
        (output,) = block.outputs
        super().__init__({"i0": In(block.stream.signature), "o0": Out(output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        first, final = block.groups[0], block.groups[-1]
        keep = Signal(init=first == 0)
        move = Signal()
        output = Signal.like(self.o0.payload, reset_less=True)
        m.d.comb += [
            move.eq(~self.o0.valid | self.o0.ready),
            self.i0.ready.eq(~keep | move),
            self.o0.payload.eq(output),
        ]
        with m.If(move):
            m.d.sync += self.o0.valid.eq(self.i0.valid & keep)
            for lane, source in enumerate(block.lanes):
                m.d.sync += output[lane].eq(self.i0.payload[source])
        # Beats to drop before the next one that is kept: within the pixel, and after its last.
        between = block.stride - 1
        after = block.stream.groups - 1 - final + first
        if between or after:
            drops = Signal(range(max(between, after) + 1), init=first)
            left = Signal(range(len(block.groups)), init=len(block.groups) - 1)
            last = left == 0
            with m.If(self.i0.valid & self.i0.ready):
                with m.If(keep):
                    m.d.sync += [
                        drops.eq(Mux(last, after, between)),
                        keep.eq(Mux(last, after == 0, between == 0)),
                        left.eq(Mux(last, len(block.groups) - 1, left - 1)),
                    ]
                with m.Else():
                    m.d.sync += [drops.eq(drops - 1), keep.eq(drops == 1)]
        return m
