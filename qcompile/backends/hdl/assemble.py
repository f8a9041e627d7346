"""Stages and FIFO depths become a design: every fork, FIFO and width change explicit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompile.backends.c.names import identifier
from qcompile.hw.block import Block
from qcompile.hw.design import Design, Node
from qcompile.hw.fifo import Fifo
from qcompile.hw.fork import Fork
from qcompile.hw.gearbox import Gearbox
from qcompile.hw.schedule import Edge
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.streams import Stream, TensorStream

LONGEST_NAME = 32


def assemble(
    flow: Flow,
    depths: Mapping[Edge, int],
    name: str,
    aliases: Mapping[str, str] | None = None,
    placed: dict[Edge, str] | None = None,
) -> Design:
    """The design of a network.

    Each value runs: writer -> fork (if several read it) -> FIFO (where `depths` asks for one) and
    gearbox (if the reader wants another number of lanes) -> reader.

    Args:
        flow: the stages.
        depths: beats, as written, of the FIFO of each edge; 0 or no entry for none.
        name: module name.
        aliases: values that another value's channel carries.
        placed: is filled with the node of each FIFO, by its edge.
    """
    builder = _Builder(depths, placed if placed is not None else {})
    for value, stream in flow.inputs.items():
        builder.offer(value, value, stream, flow)
    for index, stage in enumerate(flow.stages):
        builder.place(stage, index, flow)
    outputs: dict[str, TensorStream] = {}
    for value in flow.outputs:
        channel = builder.route(value, "", 0, None)
        leaving = builder.streams[channel]
        assert isinstance(leaving, TensorStream)
        outputs[channel] = leaving
    taps = dict(builder.taps)
    for value, carrier in (aliases or {}).items():
        if carrier in taps:
            taps[value] = taps[carrier]
    attention = {}
    for stage in flow.stages:
        if stage.op.name in builder.weights:
            tap = f"{stage.op.output} attention"
            while tap in taps:
                tap += "'"
            attention[stage.op.name], taps[tap] = tap, builder.weights[stage.op.name]
    return Design(name, dict(flow.inputs), outputs, tuple(builder.nodes), taps, attention)


@dataclass
class _Builder:
    """The design so far. `branches` has, by edge, the channel that the fork made for it, `weights`
    the channel of the attention of an operator."""

    depths: Mapping[Edge, int]
    placed: dict[Edge, str]
    nodes: list[Node] = field(default_factory=list)
    streams: dict[str, Stream] = field(default_factory=dict)
    taps: dict[str, str] = field(default_factory=dict)
    branches: dict[Edge, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def fresh(self, wanted: str) -> str:
        """A Verilog identifier that no node has yet."""
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name

    def add(self, name: str, block: Block, *inputs: str) -> tuple[str, ...]:
        """Places a block; returns the channels it writes."""
        name = self.fresh(name)
        count = len(block.outputs)
        outputs = (name,) if count == 1 else tuple(f"{name}.{port}" for port in range(count))
        self.nodes.append(Node(name, block, inputs, outputs))
        self.streams.update(zip(outputs, block.outputs, strict=True))
        return outputs

    def offer(self, value: str, channel: str, stream: Stream, flow: Flow) -> None:
        """A value exists from now on: gives each of its readers a branch."""
        self.streams[channel] = stream
        self.taps[value] = channel
        edges = [Edge(value, stage.op.name, port) for stage, port in flow.readers(value)]
        if value in flow.outputs:
            edges.append(Edge(value, "", 0))
        branches: tuple[str, ...] = (channel,)
        if len(edges) > 1:
            base = identifier(value, LONGEST_NAME) or "value"
            branches = self.add(f"{base}_fork", Fork(stream, len(edges)), channel)
        self.branches.update(zip(edges, branches, strict=False))

    def route(self, value: str, reader: str, port: int, wanted: TensorStream | None) -> str:
        """The channel at which a reader finds a value, behind its FIFO and gearbox."""
        edge = Edge(value, reader, port)
        channel = self.branches[edge]
        base = identifier(value, LONGEST_NAME) or "value"
        written = self.streams[channel]
        assert isinstance(written, TensorStream)
        lanes = written.lanes if wanted is None else wanted.lanes
        # The FIFO has the larger of both widths, so that it takes and gives at either's full rate.
        if lanes > written.lanes:
            (channel,) = self.add(f"{base}_gearbox", Gearbox(written, lanes), channel)
        depth = self.depths.get(edge, 0)
        if depth:
            stream = self.streams[channel]
            assert isinstance(stream, TensorStream)
            beats = -(-depth * written.lanes // stream.lanes)
            (channel,) = self.add(f"{base}_fifo", Fifo(stream, beats), channel)
            self.placed[edge] = channel
        if lanes < written.lanes:
            (channel,) = self.add(f"{base}_gearbox", Gearbox(written, lanes), channel)
        return channel

    def place(self, stage: Stage, index: int, flow: Flow) -> None:
        """The blocks of a stage."""
        base = f"{stage_prefix(index)}{identifier(stage.op.name, LONGEST_NAME)}".rstrip("_")
        channels = [
            self.route(value, stage.op.name, port, stage.inputs[port])
            for port, value in enumerate(stage.values)
        ]
        for port, chain in enumerate(stage.feeders):
            for block in chain:
                (channels[port],) = self.add(f"{base}_{_stem(block)}", block, channels[port])
        carried: tuple[str, ...] = ()
        for position, block in enumerate(stage.blocks):
            entering = (channels[port] for port in stage.entering(position))
            carried = self.add(f"{base}_{_stem(block)}", block, *carried, *entering)
            if position == stage.attention:
                (self.weights[stage.op.name],) = carried
        self.offer(stage.op.output, carried[0], self.streams[carried[0]], flow)


def stage_prefix(index: int) -> str:
    """How the names of a stage's nodes begin."""
    return f"l{index:02d}_"


def _stem(block: Block) -> str:
    """`matrix_vector` for a MatrixVector: the name of its file."""
    return type(block).__module__.rsplit(".", 1)[1]
