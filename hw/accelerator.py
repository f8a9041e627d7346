"""A design elaborated: every block instantiated, every channel wired."""

from __future__ import annotations

from amaranth.hdl import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.design import Design, Node
from qcompile.hw.fifo import Fifo


class Accelerator(wiring.Component):
    """The blocks of a design behind its input and output streams.

    Ports:
        i0, i1, ...: `design.inputs` in order; o0, o1, ...: `design.outputs` in order.
        With `debug`, for each of `design.taps` in order: `t{k}_fire` is high in every cycle in
        which a beat of that value is transferred, `t{k}_payload` is that beat; and for each FIFO in
        order of `design.nodes`: `f{k}_level`, the beats inside.

    Throughput and latency are those of the design's schedule.
    """

    def __init__(self, design: Design, debug: bool = False) -> None:
        self.design = design
        self.debug = debug
        members: dict[str, object] = {}
        for index, stream in enumerate(design.inputs.values()):
            members[f"i{index}"] = In(stream.signature)
        for index, stream in enumerate(design.outputs.values()):
            members[f"o{index}"] = Out(stream.signature)
        if debug:
            for index, channel in enumerate(design.taps.values()):
                members[f"t{index}_fire"] = Out(1)
                members[f"t{index}_payload"] = Out(
                    unsigned(design.streams[channel].layout.as_shape().width)
                )
            for index, node in enumerate(fifos(design)):
                assert isinstance(node.block, Fifo)
                members[f"f{index}_level"] = Out(range(node.block.depth + 1))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        design = self.design
        parts = {}
        for node in design.nodes:
            m.submodules[node.name] = parts[node.name] = node.block.create()
        # The interface that offers each channel's beats, seen from inside this module.
        offers = {
            channel: wiring.flipped(getattr(self, f"i{index}"))
            for index, channel in enumerate(design.inputs)
        }
        for node in design.nodes:
            for port, channel in enumerate(node.outputs):
                offers[channel] = getattr(parts[node.name], f"o{port}")
        for node in design.nodes:
            for port, channel in enumerate(node.inputs):
                wiring.connect(m, offers[channel], getattr(parts[node.name], f"i{port}"))
        for index, channel in enumerate(design.outputs):
            wiring.connect(m, offers[channel], wiring.flipped(getattr(self, f"o{index}")))
        if self.debug:
            for index, channel in enumerate(design.taps.values()):
                offer = offers[channel]
                m.d.comb += [
                    getattr(self, f"t{index}_fire").eq(offer.valid & offer.ready),
                    getattr(self, f"t{index}_payload").eq(offer.payload.as_value()),
                ]
            for index, node in enumerate(fifos(design)):
                m.d.comb += getattr(self, f"f{index}_level").eq(parts[node.name].level)
        return m


def fifos(design: Design) -> tuple[Node, ...]:
    """The nodes that are FIFOs, in order: those whose levels a debug build shows."""
    return tuple(node for node in design.nodes if isinstance(node.block, Fifo))
