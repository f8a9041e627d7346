"""The cycle model of a network whose FIFOs can be full: what a design really does.

The events are those of `schedule`, pixel by pixel, but a pixel leaves its writer only when every
reader, or the FIFO before it, takes it. They depend on each other in both directions, so they are
computed one after the other, stage by stage as far as each one gets: a few microseconds a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompile.hw.fifo import Fifo
from qcompile.hw.gearbox import Gearbox
from qcompile.hw.schedule import Edge, frame_cycles, streams
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.stage_timing import StageTiming, timing
from qcompile.hw.streams import TensorStream

FRAMES = 3


@dataclass(frozen=True)
class Prediction:
    """What a simulation will measure.

    Attributes:
        finished: cycle of the last output beat of each frame, from the first input beat on.
        first: cycle in which the first output pixel is complete.
    """

    finished: tuple[int, ...]
    first: int

    @property
    def interval(self) -> int:
        """Cycles from frame to frame in the steady state."""
        return self.finished[-1] - self.finished[-2]

    @property
    def latency(self) -> int:
        """Cycles from the first input beat to the last output beat of the first frame."""
        return self.finished[0]


class Stopped(ValueError):
    """The network stops for ever; `full` are the edges whose FIFOs are full."""

    def __init__(self, full: tuple[Edge, ...]) -> None:
        self.full = full
        names = ", ".join(f"{edge.value} -> {edge.reader or 'output'}" for edge in full)
        super().__init__(f"the network stops for ever with full FIFOs: {names}")


def predict(flow: Flow, depths: Mapping[Edge, int], cycles: int | None = None) -> Prediction:
    """Runs three frames, back to back, into outputs that never wait.

    Args:
        flow: the stages.
        depths: beats of the FIFO of each edge; no entry is 0.
        cycles: a frame arrives in so many cycles; default: as fast as the network takes it.

    Raises:
        Stopped: it comes to a halt.
    """
    return _Run(flow, depths, cycles).run()


@dataclass
class _Link:
    """An edge: what waits in it, and when its reader takes what.

    Times are of the last beat of each pixel, as far as they are known.

    Attributes:
        depth: pixels that the FIFO holds; 0 for none.
        delay: cycles through the FIFO and to another number of lanes.
        beats: cycles that the reader needs for a pixel.
        lead: cycles from taking a pixel to having gathered it.
        release: cycles from having gathered an output to the room that it leaves.
        offered: when the reader could have each pixel.
        taken: when it takes it.
        waits: outputs that the reader must have gathered before each pixel.
        needs: pixels that the reader needs for each output.
        mates: links that the reader takes from together with this one, beat by beat.
        after: link of which the reader takes a pixel before it takes one from here.
        shift: 0 if that is the same pixel, 1 if the one before.
        forked: straight from a fork of pixels of several beats, of which no reader gets more than
            a beat ahead of the others: what is taken is decided where the pixel leaves.
    """

    edge: Edge
    depth: int
    delay: int
    beats: int
    reader: _Node | None = None
    lead: int = 0
    release: int = 0
    offered: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    needs: list[int] = field(default_factory=list)
    mates: list[_Link] = field(default_factory=list)
    after: _Link | None = None
    shift: int = 0
    forked: bool = False

    def take(self) -> bool:
        """The reader takes what is offered, as far as is known; whether that was anything."""
        if self.forked:
            return False
        before = pixel = len(self.taken)
        while pixel < len(self.offered):
            time = self.earliest(pixel)
            if time is None:
                break
            self.taken.append(time)
            pixel += 1
        return pixel > before

    def earliest(self, pixel: int) -> int | None:
        """When the reader can take the pixel that is offered next; None while not known."""
        time, taken, reader, beats = self.offered[pixel], self.taken, self.reader, self.beats
        if pixel and taken[-1] + beats > time:
            time = taken[-1] + beats
        for mate in self.mates:
            known = mate.taken if mate.forked and not self.forked else mate.offered
            if pixel >= len(known):
                return None
            time = max(time, known[pixel])
        if self.after is not None and pixel >= self.shift:
            if pixel - self.shift >= len(self.after.taken):
                return None
            time = max(time, self.after.taken[pixel - self.shift] + beats)
        if reader is not None and self.waits:
            count = self.waits[pixel]
            if count > len(reader.gathered):
                return None
            if count:
                time = max(time, reader.gathered[count - 1] + self.release + beats - 1)
        return time

    def offer(self, pixel: int, time: int) -> int | None:
        """A pixel is offered from a time on; when it can leave, None while that is not known."""
        if self.depth:
            if pixel < self.depth:
                return time
            behind = pixel - self.depth
            return max(time, self.taken[behind] + 1) if behind < len(self.taken) else None
        if len(self.offered) == pixel:
            self.offered.append(time + self.delay)
        if len(self.taken) > pixel:
            return self.taken[pixel] - self.delay
        when = self.earliest(pixel)
        return None if when is None else when - self.delay

    def leave(self, pixel: int, time: int) -> None:
        """The pixel leaves the writer towards this reader."""
        if self.depth:
            if len(self.offered) == pixel:
                self.offered.append(time + self.delay)
        elif len(self.taken) == pixel:
            self.taken.append(time + self.delay)


@dataclass
class _Node:
    """A stage, or an input of the graph (which gathers everything at its arrival)."""

    own: StageTiming
    total: int
    beats: int
    sources: list[_Link]
    links: list[_Link]
    together: bool = False
    gathered: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def advance(self) -> bool:
        """As far as is known; whether that was any further."""
        moved = False
        for link in self.sources:
            if len(link.offered) > len(link.taken) and link.take():
                moved = True
        while self._gather() | (len(self.left) < len(self.gathered) and self._leave()):
            moved = True
        return moved

    def _gather(self) -> bool:
        own, gathered, left = self.own, self.gathered, self.left
        before = len(gathered)
        limit = min(self.total, len(left) + own.places)
        for pixel in range(before, limit):
            time = gathered[-1] + own.interval if pixel else 0
            if own.gap and pixel and pixel % own.pixels == 0:
                time += own.gap
            if pixel >= own.places:
                time = max(time, left[pixel - own.places] - own.tail)
            for link in self.sources:
                need = link.needs[pixel]
                if need > len(link.taken):
                    return len(gathered) > before
                if need:
                    time = max(time, link.taken[need - 1] + link.lead)
            gathered.append(time)
        return len(gathered) > before

    def _leave(self) -> bool:
        gathered, left, tail = self.gathered, self.left, self.own.tail
        before = len(left)
        for pixel in range(before, len(gathered)):
            time = gathered[pixel] + tail
            if pixel:
                time = max(time, left[-1] + self.beats)
            last = time
            late = False
            # All are asked, in two rounds: one reader's offer may be what another one waits for.
            for link in self.links:
                if not link.depth and len(link.offered) == pixel:
                    link.offered.append(time + link.delay)
            for link in self.links:
                when = link.offer(pixel, time)
                if when is None:
                    late = True
                elif not self.together:
                    link.leave(pixel, when)
                    last = max(last, when)
                else:
                    last = max(last, when)
            if late:
                return len(left) > before
            if self.together:
                for link in self.links:
                    link.leave(pixel, last)
            left.append(last)
        return len(left) > before


def _couple(stage: Stage, own: StageTiming, links: list[_Link]) -> None:
    """How the ports of a stage with several inputs wait for each other."""
    plain = [link for port, link in enumerate(links) if own.joins(port)]
    if len(plain) < 2:
        return
    if stage.output.groups == sum(port.groups for port in stage.inputs):
        # Concat: all beats of a pixel of one input, then those of the next one.
        for position, link in enumerate(plain):
            link.after, link.shift = plain[position - 1], int(position == 0)
        return
    for link in plain:
        link.mates = [mate for mate in plain if mate is not link]


class _Run:
    """All nodes and links of a flow."""

    def __init__(self, flow: Flow, depths: Mapping[Edge, int], cycles: int | None) -> None:
        self.flow = flow
        known = streams(flow)
        self.links = {value: list[_Link]() for value in known}
        self.nodes: list[_Node] = []
        for value in flow.outputs:
            self._link(Edge(value, "", 0), known[value], known[value], depths)
        for stage in reversed(flow.stages):
            own, sources = timing(stage), []
            for port, value in enumerate(stage.values):
                edge = Edge(value, stage.op.name, port)
                link = self._link(edge, known[value], stage.inputs[port], depths)
                link.lead, link.release = own.leads[port], own.releases[port]
                if not own.joins(port):
                    link.waits = own.room(port).tolist()
                link.needs = own.rules[port].needs(FRAMES).tolist()
                sources.append(link)
            _couple(stage, own, sources)
            node = self._node(own, stage.output, sources, self.links[stage.op.output])
            for link in sources:
                link.reader = node
        self.nodes.reverse()
        for value, stream in flow.inputs.items():
            beats = stream.groups if cycles is None else max(stream.groups, cycles // stream.pixels)
            own = StageTiming(stream.pixels, beats, 0, (), 0, 1, (), (), ())
            node = self._node(own, stream, [], self.links[value])
            node.total = FRAMES * stream.pixels

    def _link(
        self,
        edge: Edge,
        stream: TensorStream,
        wanted: TensorStream,
        depths: Mapping[Edge, int],
    ) -> _Link:
        depth = depths.get(edge, 0)
        delay = Fifo(stream, depth).latency if depth else 0
        if stream.lanes != wanted.lanes:
            delay += Gearbox(stream, wanted.lanes).latency
        beats = max(stream.groups, wanted.groups)
        pixels = max(1, depth // stream.groups) if depth else 0
        link = _Link(edge, pixels, delay, beats)
        self.links[edge.value].append(link)
        return link

    def _node(
        self, own: StageTiming, stream: TensorStream, sources: list[_Link], links: list[_Link]
    ) -> _Node:
        together = stream.groups > 1 and len(links) > 1
        node = _Node(own, FRAMES * stream.pixels, stream.groups, sources, links, together)
        for link in links:
            link.forked = together and not link.depth
        self.nodes.append(node)
        return node

    def run(self) -> Prediction:
        """Advances until nothing moves any more."""
        while any([node.advance() for node in self.nodes]):
            pass
        stuck = [node for node in self.nodes if len(node.left) < node.total]
        if stuck:
            raise Stopped(
                tuple(
                    link.edge
                    for links in self.links.values()
                    for link in links
                    if link.depth and len(link.offered) - len(link.taken) >= link.depth
                )
            )
        ends = [0] * FRAMES
        first = 0
        for value in self.flow.outputs:
            link = next(link for link in self.links[value] if not link.edge.reader)
            pixels = len(link.taken) // FRAMES
            first = max(first, link.taken[0])
            frames = [link.taken[(frame + 1) * pixels - 1] for frame in range(FRAMES)]
            ends = [max(pair) for pair in zip(ends, frames, strict=True)]
        return Prediction(tuple(ends), first)


def slowdown(flow: Flow, depths: Mapping[Edge, int]) -> float:
    """Cycles from frame to frame in relation to those of the bottleneck; 1.0 is the best."""
    return predict(flow, depths).interval / frame_cycles(flow)
