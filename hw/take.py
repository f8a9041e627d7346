"""Keeps the elements of a window stream, drops its flags."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Take(Block):
    """The tensor that a window of one tap emits: nearest resize, padding, cropping.

    Wires only. Latency: none. Throughput: one beat a cycle. Ports: `i0`, `o0`.
    """

    input: WindowStream

    def __post_init__(self) -> None:
        if self.input.fold_beats != 1:
            raise ValueError(f"a window of {self.input.fold_beats} beats has no single element")

    @property
    def inputs(self) -> tuple[WindowStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        window = self.input
        height, width = len(window.row_phases), len(window.column_phases)
        channels = window.folds * window.lanes
        return TensorStream(height, width, channels, window.element, window.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        return (frame,)

    def create(self) -> wiring.Component:
        return TakeWires(self)

    @property
    def cycles(self) -> int:
        return self.input.beats

    @property
    def latency(self) -> int:
        return 0


class TakeWires(wiring.Component):
    """Hardware of `Take`."""

    def __init__(self, block: Take) -> None:
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [
            self.o0.payload.eq(self.i0.payload.data),
            self.o0.valid.eq(self.i0.valid),
            self.i0.ready.eq(self.o0.ready),
        ]
        return m
