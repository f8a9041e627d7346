"""A stage, with the gearboxes and feeders of its assembly, as one block for the test driver."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.lib import wiring

from qcompile.backends.hdl.assemble import assemble
from qcompile.hw.accelerator import Accelerator
from qcompile.hw.block import Block
from qcompile.hw.design import Design
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.streams import Stream
from qcompile.types import Array


@dataclass(frozen=True)
class Chain(Block):
    """Inputs in the order of `stage.values`, each value once."""

    stage: Stage

    @property
    def design(self) -> Design:
        pairs = zip(self.stage.values, self.stage.inputs, strict=True)
        flow = Flow(dict(pairs), (self.stage,), (self.stage.op.output,))
        return assemble(flow, {}, "chain")

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return tuple(self.design.inputs.values())

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return tuple(self.design.outputs.values())

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        by_value = dict(zip(self.design.inputs, frames, strict=True))
        streams = self.design.inputs
        tensors = [streams[value].from_beats(by_value[value]) for value in self.stage.values]
        (output,) = self.outputs
        return (output.to_beats(self.stage.compute(*tensors)),)  # type: ignore[attr-defined]

    def create(self) -> wiring.Component:
        return Accelerator(self.design)

    @property
    def cycles(self) -> int:
        return self.stage.cycles

    @property
    def latency(self) -> int:
        return self.stage.latency

    @property
    def ram_bits(self) -> int:
        return self.design.ram_bits
