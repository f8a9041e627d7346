"""Concatenation of channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import numpy as np
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array, IntType


@dataclass(frozen=True, slots=True)
class Concat(Block):
    """For each pixel the beats of the first input, then those of the second, and so on.

    Elements are extended by zeros or by their sign to the output's.

    Latency: 1 cycle (an output register; `ready` passes through combinationally). Throughput: one
    beat a cycle.

    Attributes:
        sources: what arrives; equal height, width and lanes.
        element: of the output; holds every value of every input.
    """

    sources: tuple[TensorStream, ...]
    element: IntType

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("nothing to concatenate")
        first = self.sources[0]
        for source in self.sources:
            if (source.height, source.width) != (first.height, first.width):
                raise ValueError("maps of different sizes")
            if source.lanes != first.lanes:
                raise ValueError(f"{source.lanes} and {first.lanes} lanes")
            if not self.element.range.contains(source.element.range):
                raise ValueError(f"{self.element} does not hold {source.element}")

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return self.sources

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        channels = sum(source.channels for source in self.sources)
        return (replace(self.sources[0], channels=channels, element=self.element),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (output,) = self.outputs
        pixels = [frame.reshape(output.pixels, -1) for frame in frames]
        return (np.concatenate(pixels, axis=1).reshape(output.beats, output.lanes),)

    def create(self) -> ConcatComponent:
        return ConcatComponent(self)

    @property
    def cycles(self) -> int:
        return self.outputs[0].beats

    @property
    def latency(self) -> int:
        return 1


class ConcatComponent(wiring.Component):
    """Hardware of `Concat`. Ports: `i0` .. one for each input, and `o0`."""

    def __init__(self, block: Concat) -> None:
        self._block = block
        ports = {f"i{k}": In(source.signature) for k, source in enumerate(block.sources)}
        super().__init__(ports | {"o0": Out(block.outputs[0].signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = [source.groups for source in self._block.sources]
        inputs = [getattr(self, f"i{k}") for k in range(len(counts))]
        turn = Signal(len(counts), init=1)
        move = Signal()
        valid = Signal()
        m.d.comb += [
            move.eq(~self.o0.valid | self.o0.ready),
            valid.eq(reduce(or_, (turn[k] & port.valid for k, port in enumerate(inputs)))),
        ]
        m.d.comb += [port.ready.eq(turn[k] & move) for k, port in enumerate(inputs)]
        output = Signal.like(self.o0.payload, reset_less=True)
        m.d.comb += self.o0.payload.eq(output)
        with m.If(move):
            m.d.sync += self.o0.valid.eq(valid)
            for lane in range(self._block.outputs[0].lanes):
                chosen = inputs[0].payload[lane]
                for k, port in enumerate(inputs[1:], start=1):
                    chosen = Mux(turn[k], port.payload[lane], chosen)
                m.d.sync += output[lane].eq(chosen)
        with m.If(move & valid):
            self._advance(m, counts, turn)
        return m

    def _advance(self, m: Module, counts: list[int], turn: Signal) -> None:
        """One beat passes: count it, and go to the next input after the last of this one."""
        left = Signal(range(max(counts)), init=counts[0] - 1)
        last = Signal(init=counts[0] == 1)
        with m.If(last):
            m.d.sync += turn.eq(turn.rotate_left(1))
            for k in range(len(counts)):
                following = counts[(k + 1) % len(counts)]
                with m.If(turn[k]):
                    m.d.sync += [left.eq(following - 1), last.eq(following == 1)]
        with m.Else():
            m.d.sync += [left.eq(left - 1), last.eq(left == 1)]
