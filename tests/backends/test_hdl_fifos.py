"""FIFOs in hardware: enough at their minimum whoever waits for whom, too few a row below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.backends.hdl.assemble import assemble
from qcompile.backends.hdl.backend import HdlBackend, HdlPlan
from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.flow import StreamGraph
from qcompile.backends.hdl.simulate import Simulation
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.backends.hdl.verify import verify
from qcompile.graph import Graph
from qcompile.hdl_options import FifoPolicy
from qcompile.hw.block import Block
from qcompile.hw.design import Design, Node
from qcompile.hw.schedule import Edge, frame_cycles
from qcompile.hw.streams import Stream, TensorStream
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.backends.hdl_models import Net, compiled, feeds, residual, transposed_unet

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")

STALLS = (
    Stalls(1.0, 0.03, 1),
    Stalls(0.03, 1.0, 2),
    *(Stalls(0.7, 0.7, seed) for seed in range(3, 9)),
)
"""A sink that hardly ever takes anything, a source that hardly ever sends, and both at random."""


def dense() -> onnx.ModelProto:
    """Skips within skips: each block reads everything before it."""
    net = Net({"image": (1, 2, 10, 10)})
    first = net.block("image", 2)
    second = net.concat(first, net.block(net.block(first, 2), 2))
    third = net.concat(second, net.block(second, 2), first)
    return net.model(net.conv(third, 2, 1))


NETWORKS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "dense": dense,
    "residual": residual,
    "unet": transposed_unet,
}


@dataclass(frozen=True)
class Pauses(Block):
    """Lets beats pass for a random while, then none for a random, often much longer, while."""

    stream: Stream
    seed: int

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return frames

    def create(self) -> wiring.Component:
        return PausesComponent(self)

    @property
    def cycles(self) -> int:
        return 8 * self.stream.beats

    @property
    def latency(self) -> int:
        return 1


class PausesComponent(wiring.Component):
    """A register that takes nothing while it is shut. A pause lasts for up to 1024 cycles."""

    def __init__(self, block: Pauses) -> None:
        self._seed = block.seed
        super().__init__({"i0": In(block.stream.signature), "o0": Out(block.stream.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        random = Signal(23, init=self._seed)
        m.d.sync += random.eq(Cat(random[17] ^ random[22], random))
        is_open = Signal()
        left = Signal(10)
        with m.If(left == 0):
            # As often up to 8, 32, 256 or 1024 cycles.
            bits = Mux(random[1], Mux(random[2], 10, 8), Mux(random[2], 5, 3))
            m.d.sync += [is_open.eq(~is_open), left.eq(random[4:14] & ((1 << bits) - 1))]
        with m.Else():
            m.d.sync += left.eq(left - 1)
        m.d.comb += self.i0.ready.eq(is_open & (~self.o0.valid | self.o0.ready))
        with m.If(self.i0.valid & self.i0.ready):
            m.d.sync += [self.o0.valid.eq(1), self.o0.payload.eq(self.i0.payload)]
        with m.Elif(self.o0.ready):
            m.d.sync += self.o0.valid.eq(0)
        return m


def paused(design: Design) -> Design:
    """The design with pauses behind its inputs and before its outputs."""
    before = [
        Node(f"pause_i{k}", Pauses(stream, 1000 + k), (channel,), (f"{channel} paused",))
        for k, (channel, stream) in enumerate(design.inputs.items())
    ]
    after = [
        Node(f"pause_o{k}", Pauses(stream, 2000 + k), (channel,), (f"{channel} leaving",))
        for k, (channel, stream) in enumerate(design.outputs.items())
    ]
    renamed = {node.inputs[0]: node.outputs[0] for node in before}
    inner = [
        replace(node, inputs=tuple(renamed.get(channel, channel) for channel in node.inputs))
        for node in design.nodes
    ]
    outputs = {f"{channel} leaving": stream for channel, stream in design.outputs.items()}
    return replace(design, nodes=(*before, *inner, *after), outputs=outputs)


def planned(name: str, folder: Path, policy: FifoPolicy) -> tuple[Graph, HdlPlan]:
    graph = compiled(NETWORKS[name](), folder, wbits="4", abits="6")
    return graph, HdlBackend(fifos=policy).plan(graph)


def simulated_frames(graph: Graph, design: Design, count: int) -> list[list[Array]]:
    """What is sent: [frame][input] beats."""
    taps = tuple(design.inputs)
    values = [Executor(graph).run(feed, taps=taps) for feed in feeds(graph, count)]
    streams = design.inputs.items()
    return [[stream.to_beats(found[value]) for value, stream in streams] for found in values]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_minimum_is_enough_under_any_stalls(name: str, tmp_path: Path) -> None:
    graph, plan = planned(name, tmp_path, FifoPolicy.MINIMUM)
    assert any(size.depth for size in plan.fifos.sizes.values())
    result = verify(graph, paused(plan.design), feeds(graph, 3), stalls=STALLS)
    depths = {
        node.name: node.block.depth
        for node in plan.design.nodes
        if node.name in result.fifo_high_water and hasattr(node.block, "depth")
    }
    # A minimum that no run ever needed would be too much.
    assert result.fifo_high_water == depths


def shortened(plan: HdlPlan, edge: Edge) -> Design:
    """The design with minimal FIFOs, but a row less than the bound at one edge."""
    depths = {other: size.depth for other, size in plan.fifos.sizes.items()}
    stream = _stream(plan, edge)
    depths[edge] = plan.fifos.sizes[edge].minimum - stream.width * stream.groups
    return assemble(plan.flow, depths, plan.design.name, StreamGraph(plan.streams.graph).aliases)


def _stream(plan: HdlPlan, edge: Edge) -> TensorStream:
    stage = next(stage for stage in plan.flow.stages if stage.op.output == edge.value)
    return stage.output


def deep(plan: HdlPlan) -> list[Edge]:
    """Edges whose FIFO is left with something when a row is taken away."""
    return [
        edge
        for edge, size in plan.fifos.sizes.items()
        if size.minimum and size.minimum > _stream(plan, edge).width * _stream(plan, edge).groups
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_less_stops_for_ever(name: str, tmp_path: Path) -> None:
    graph, plan = planned(name, tmp_path, FifoPolicy.MINIMUM)
    edge = max(deep(plan), key=lambda edge: plan.fifos.sizes[edge].minimum)
    design = shortened(plan, edge)
    frames = simulated_frames(graph, design, 2)
    simulation = Simulation.of_design(design)
    for stalls in (Stalls(), Stalls(1.0, 0.03, 1), Stalls(0.03, 1.0, 2), Stalls(0.7, 0.7, 3)):
        deadlock = simulation.run(frames, stalls).deadlock
        assert deadlock is not None
        assert any(name.startswith(f"{edge.value}_fifo") for name in deadlock.full), deadlock.full


@pytest.mark.parametrize("name", NETWORKS)
def test_the_depths_for_rate_keep_the_pace_of_the_bottleneck(name: str, tmp_path: Path) -> None:
    graph, plan = planned(name, tmp_path, FifoPolicy.RATE)
    bottleneck = frame_cycles(plan.flow)
    simulation = Simulation.of_design(plan.design)
    result = simulation.run(simulated_frames(graph, plan.design, 4))
    assert result.deadlock is None
    assert result.frame_cycles[-1] <= 1.01 * bottleneck
    assert plan.speed.interval == bottleneck
