"""One stream for several readers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Fork(Block):
    """Copies every beat to `branches` outputs; each takes it at its own pace.

    A beat leaves the input when the last branch takes it; one bit for each branch remembers who has
    had it already. No branch waits for another one within a beat.

    Latency: 0 cycles (all paths are combinational). Throughput: one beat a cycle.

    Attributes:
        stream: what arrives, a TensorStream or a WindowStream.
        branches: number of outputs, at least 2.
    """

    stream: Stream
    branches: int

    def __post_init__(self) -> None:
        if self.branches < 2:
            raise ValueError(f"a fork of {self.branches} branches")

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return (self.stream,) * self.branches

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return (frames[0],) * self.branches

    def create(self) -> ForkComponent:
        return ForkComponent(self)

    @property
    def cycles(self) -> int:
        return self.stream.beats

    @property
    def latency(self) -> int:
        return 0


class ForkComponent(wiring.Component):
    """Hardware of `Fork`. Ports: `i0`, and `o0` .. one for each branch."""

    def __init__(self, block: Fork) -> None:
        self._branches = block.branches
        signature = block.stream.signature
        super().__init__(
            {"i0": In(signature)} | {f"o{k}": Out(signature) for k in range(block.branches)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outputs = [getattr(self, f"o{k}") for k in range(self._branches)]
        taken = [Signal(name=f"taken{k}") for k in range(self._branches)]
        done = [bit | output.ready for bit, output in zip(taken, outputs, strict=True)]
        m.d.comb += self.i0.ready.eq(reduce(and_, done))
        for bit, served, output in zip(taken, done, outputs, strict=True):
            m.d.comb += [
                output.payload.eq(self.i0.payload),
                output.valid.eq(self.i0.valid & ~bit),
            ]
            with m.If(self.i0.valid):
                m.d.sync += bit.eq(Mux(self.i0.ready, 0, served))
        return m
