"""When every pixel of a flow leaves: the cycle model of a whole network, pixel by pixel.

`schedule` is the model in which no FIFO is ever full and every pixel leaves as soon as it can: a
max-plus recursion over `StageTiming`, stage by stage. `late_schedule` is its mirror image: every
pixel leaves as late as it can without delaying an output. The hardware could follow either; it runs
at least as fast as any schedule that its FIFOs have room for.

Times are the clock cycles in which the last beat of a pixel is transferred, from the first input
beat on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qcompile.hw.axis import AxisPattern
from qcompile.hw.block import Block
from qcompile.hw.raster_walk import RasterWalk, raster_walk
from qcompile.hw.softmax import Softmax
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.window import RELEASE_LATENCY
from qcompile.types import Array

FRAMES = 3
"""Frames back to back: one fills the network, the others tell the steady state."""


class Edge(NamedTuple):
    """A value on its way to one reader.

    Attributes:
        value: what flows.
        reader: the operator's name, "" for an output of the graph.
        port: input port of the reader; 0 for an output of the graph.
    """

    value: str
    reader: str
    port: int


def edges(flow: Flow) -> tuple[Edge, ...]:
    """All edges: those of the stages in order, then the outputs of the graph."""
    inner = [
        Edge(value, stage.op.name, port)
        for stage in flow.stages
        for port, value in enumerate(stage.values)
    ]
    return (*inner, *(Edge(value, "", 0) for value in flow.outputs))


def streams(flow: Flow) -> Mapping[str, TensorStream]:
    """What each value of a flow looks like where it is written."""
    return {**flow.inputs, **{stage.op.output: stage.output for stage in flow.stages}}


@dataclass(frozen=True)
class PortRule:
    """What a stage does at one input, counted in pixels and without regard to time.

    Attributes:
        demand: [output pixels] input pixels that must have arrived for an output pixel to leave.
        freed: [output pixels] input pixels let go of while an output pixel is made; None if the
            stage keeps none (then it takes a pixel only when an output that needs it is next).
        room: input pixels that the stage holds: what an output needs at once.
        spare: input pixels that it holds beyond that.
        pixels: input pixels of a frame.
    """

    demand: Array
    freed: Array | None
    room: int
    spare: int
    pixels: int

    def needs(self, frames: int) -> Array:
        """[frames * outputs] pixels that must have arrived for each output pixel."""
        return self._repeat(self.demand, frames)

    def waits(self, frames: int, spare: int = 0) -> Array:
        """[frames * inputs] how many outputs must be done before there is room for each pixel.

        Args:
            spare: pixels that are held beyond `room`.
        """
        pixels = np.arange(frames * self.pixels, dtype=np.int64)
        if self.freed is None:
            return np.searchsorted(self.needs(frames), pixels, side="right")
        first = pixels - self.room - spare
        return np.searchsorted(self._repeat(self.freed, frames), first, side="right")

    def _repeat(self, counts: Array, frames: int) -> Array:
        starts = np.arange(frames, dtype=np.int64)[:, None] * self.pixels
        return (starts + counts).reshape(-1)


def port_rules(stage: Stage) -> tuple[PortRule, ...]:
    """The rule of each input port of a stage."""
    feeders = stage.feeders or ((),) * len(stage.values)
    rules = []
    for stream, demand, chain in zip(stage.inputs, stage.demand, feeders, strict=True):
        first = (*chain, *stage.blocks)[0]
        walk = _walk(first)
        if walk is None or walk.needed.size != demand.size:
            rules.append(PortRule(demand, None, 0, 0, stream.pixels))
        else:
            needed = np.maximum(demand, walk.needed.reshape(-1))
            held = getattr(first, "buffer_pixels", 0)
            spare = max(1, int(held) - walk.span)
            released = walk.released.reshape(-1)
            rules.append(PortRule(needed, released, walk.span, spare, stream.pixels))
    return tuple(rules)


def _walk(block: Block) -> RasterWalk | None:
    """How a sliding window moves; None for other blocks."""
    rows, columns = getattr(block, "rows", None), getattr(block, "columns", None)
    if isinstance(rows, AxisPattern) and isinstance(columns, AxisPattern):
        return raster_walk(rows, columns)
    return None


@dataclass(frozen=True)
class StageTiming:
    """A stage as the cycle model sees it: a part that gathers, and a pipeline behind it.

    Attributes:
        pixels: output pixels of a frame.
        interval: cycles from output pixel to output pixel.
        gap: cycles lost between two frames.
        leads: for each port the cycles from the last beat needed to the last beat gathered.
        tail: cycles through the pipeline.
        places: output pixels that the pipeline holds when it is stopped.
        releases: for each port the cycles from the last beat gathered of a pixel to room for
            another one (negative: the beat is on its way longer than that).
        beats: for each port the cycles between two pixels: the beats of one.
        rules: for each port.
    """

    pixels: int
    interval: int
    gap: int
    leads: tuple[int, ...]
    tail: int
    places: int
    releases: tuple[int, ...]
    beats: tuple[int, ...]
    rules: tuple[PortRule, ...]

    def joins(self, port: int) -> bool:
        """Whether pixels of this input go straight into outputs, with those of other inputs."""
        return len(self.rules) > 1 and self.rules[port].freed is None

    def room(self, port: int) -> Array:
        """[FRAMES * inputs] outputs that must have been gathered before a pixel is taken."""
        rule = self.rules[port]
        waits = rule.waits(FRAMES, rule.spare)
        if rule.freed is None:
            # The registers of the pipeline take the pixels on their way.
            waits = np.maximum(waits - 1 - -(-self.leads[port] // self.interval), 0)
        return waits


def timing(stage: Stage) -> StageTiming:
    """The cycle model of one stage, from the figures its blocks state.

    An output is gathered when it leaves the block that the last of the inputs enters.
    """
    interval, gap = _interval(stage)
    joined = 1 + max(stage.entries, default=0)
    feeders = stage.feeders or ((),) * len(stage.values)
    leads, releases = [], []
    for port, chain in enumerate(feeders):
        path = [*chain, *stage.blocks[stage.entry(port) : joined]]
        lead = sum(block.latency for block in path)
        gathers = _walk(path[0]) is not None and (not chain or _multiplies(path[0]))
        releases.append(RELEASE_LATENCY - lead if gathers else 0)
        spread = [_spread(block, interval) for block in stage.blocks[stage.entry(port) : joined]]
        leads.append(lead + sum(spread) + (interval - 1 if chain and gathers else 0))
    tail = sum(block.latency + _serial(block) for block in stage.blocks[joined:])
    beats = tuple(stream.groups for stream in stage.inputs)
    places = 1 + -(-tail // interval)
    pixels = stage.output.pixels
    rules = port_rules(stage)
    return StageTiming(
        pixels, interval, gap, tuple(leads), tail, places, tuple(releases), beats, rules
    )


def _multiplies(block: Block) -> bool:
    """Whether more beats of a pixel leave a block than arrive."""
    (source, *_), (target, *_) = block.inputs, block.outputs
    return isinstance(target, WindowStream) and target.pixel_beats > getattr(source, "groups", 1)


def _spread(block: Block, interval: int) -> int:
    """Cycles from the first to the last beat of a pixel that a block sends when it has it whole."""
    if isinstance(block, Softmax):
        return (block.set_beats - 1) * block.interval
    return interval - 1 if _walk(block) is not None else 0


def _serial(block: Block) -> int:
    """Cycles from the first to the last of the beats that a block makes of one."""
    (source, *_), (target, *_) = block.inputs, block.outputs
    if isinstance(source, TensorStream) and isinstance(target, TensorStream):
        return max(0, source.lanes // target.lanes - 1)
    return 0


def _interval(stage: Stage) -> tuple[int, int]:
    """Cycles an output pixel takes when its inputs have all arrived, and cycles lost a frame."""
    pixels = stage.output.pixels
    expanded = (
        block.outputs[0].beats // pixels
        for chain in stage.feeders
        for block in chain
        if _multiplies(block)
    )
    interval, gap = max(expanded, default=1), 0
    for position, block in enumerate(stage.blocks):
        beats = max(stream.beats for stream in block.outputs) // pixels
        arriving = max(stream.beats for stream in block.inputs)
        if position == 0 and (_walk(block) is not None or block.cycles <= arriving):
            # Its input is a limit of its own, and so is its room: outputs may come in bursts.
            interval = max(interval, beats)
            continue
        one = max(beats, block.cycles // pixels)
        if one > interval:
            interval, gap = one, block.cycles - one * pixels
    return interval, max(0, gap)


def _spaced(earliest: Array, gap: int) -> Array:
    """The first times that are no earlier than `earliest` and at least `gap` apart."""
    steps = np.arange(earliest.size, dtype=np.int64) * gap
    spaced: Array = np.maximum.accumulate(earliest - steps) + steps
    return spaced


class Room(NamedTuple):
    """When a reader has room for each pixel of an input, and the cycles it takes one in."""

    times: Array
    beats: int


@dataclass(frozen=True)
class Schedule:
    """What the cycle model says of a network.

    Attributes:
        emitted: value -> [FRAMES * pixels] cycle in which each pixel leaves its writer.
        rooms: edge to a stage -> when the stage has room for each pixel.
        interval: cycles from frame to frame in the steady state.
        latency: cycles from the first input beat to the last output beat of the first frame.
    """

    emitted: Mapping[str, Array]
    rooms: Mapping[Edge, Room]
    interval: int
    latency: int

    @cached_property
    def spans(self) -> Mapping[str, tuple[int, int]]:
        """Value -> cycles in which the first and the last pixel of the first frame leave."""
        found = {}
        for value, times in self.emitted.items():
            pixels = times.size // FRAMES
            found[value] = (int(times[0]), int(times[pixels - 1]))
        return found

    def waiting(self, edge: Edge, writer: Schedule | None = None) -> int:
        """The most pixels that have left the writer and for which the reader has no room yet.

        Args:
            writer: the schedule that the writer follows, if it is another one.
        """
        if not edge.reader:
            return 0
        times = (writer or self).emitted[edge.value]
        room = self.rooms[edge]
        taken = _spaced(np.maximum(times, room.times), room.beats)
        gone = np.searchsorted(taken, times, side="right")
        return max(0, int(np.max(np.arange(1, times.size + 1) - gone)))


def _finished(flow: Flow, emitted: Mapping[str, Array], rooms: Mapping[Edge, Room]) -> Schedule:
    ends = [emitted[value].reshape(FRAMES, -1)[:, -1] for value in flow.outputs]
    last = np.max(ends, axis=0).tolist()
    return Schedule(emitted, rooms, last[-1] - last[-2], last[0])


def frame_cycles(flow: Flow) -> int:
    """Cycles from frame to frame that the slowest stage or port allows: the bottleneck."""
    known = streams(flow)
    ports = [known[value].beats for value in (*flow.inputs, *flow.outputs)]
    return max([*ports, *(stage.cycles for stage in flow.stages)])


def arrivals(stream: TensorStream, cycles: int) -> Array:
    """Times of the pixels of an input that sends a frame in `cycles`, evenly."""
    count = np.arange(1, FRAMES * stream.pixels + 1, dtype=np.int64)
    return count * cycles // stream.pixels


def _forward(own: StageTiming, arriving: list[Array]) -> tuple[Array, list[Array]]:
    """When a stage that is never stopped has gathered each output, and has room for each input."""
    total = FRAMES * own.pixels
    ports = range(len(arriving))
    needs = [rule.needs(FRAMES) for rule in own.rules]
    starts = np.arange(total, dtype=np.int64) // own.pixels * own.gap
    room = [np.zeros_like(times) for times in arriving]
    gathered = np.zeros(total, dtype=np.int64)
    # Taking waits for room, room for outputs, outputs for what was taken: repeated until it rests.
    for _ in range(8):
        ready = np.zeros(total, dtype=np.int64)
        for port in ports:
            taken = _spaced(np.maximum(arriving[port], room[port]), own.beats[port])
            ready = np.maximum(ready, _before(taken, needs[port]) + own.leads[port])
        now = _spaced(ready - starts, own.interval) + starts
        if np.array_equal(now, gathered):
            break
        gathered = now
        room = [_freed(own, port, gathered) for port in ports]
    return gathered, room


def _freed(own: StageTiming, port: int, gathered: Array) -> Array:
    """When the last beat of each pixel of an input can be taken, for want of room."""
    if own.joins(port):
        # It is taken together with the other inputs' pixels.
        first = own.rules[port].waits(FRAMES)
        together: Array = np.append(gathered, gathered[-1])[first] - own.leads[port]
        return together
    counts = own.room(port)
    wait = own.releases[port] + own.beats[port] - 1
    return np.where(counts > 0, gathered[counts - 1] + wait, 0)


def _before(times: Array, counts: Array) -> Array:
    """When so many of the events had happened; 0 for none."""
    return np.where(counts > 0, times[counts - 1], 0)


def schedule(flow: Flow, cycles: int | None = None) -> Schedule:
    """The schedule with FIFOs that are never full.

    Args:
        cycles: a frame arrives in so many cycles; default: at the rate of the bottleneck.
    """
    period = frame_cycles(flow) if cycles is None else cycles
    emitted = {value: arrivals(stream, period) for value, stream in flow.inputs.items()}
    rooms: dict[Edge, Room] = {}
    for stage in flow.stages:
        own = timing(stage)
        gathered, room = _forward(own, [emitted[value] for value in stage.values])
        emitted[stage.op.output] = gathered + own.tail
        for port, value in enumerate(stage.values):
            rooms[Edge(value, stage.op.name, port)] = Room(room[port], own.beats[port])
    return _finished(flow, emitted, rooms)


def late_schedule(flow: Flow, early: Schedule) -> Schedule:
    """The schedule in which everything leaves as late as it can without delaying any output.

    Args:
        early: what `schedule` says.
    """
    latest = {value: early.emitted[value] for value in flow.outputs}
    rooms: dict[Edge, Room] = {}
    for stage in reversed(flow.stages):
        own = timing(stage)
        # A value that nothing reads may leave when it likes.
        leaves = latest.setdefault(stage.op.output, early.emitted[stage.op.output])
        starts = np.arange(leaves.size, dtype=np.int64) // own.pixels * own.gap
        gathered = _spaced_back(leaves - own.tail - starts, own.interval) + starts
        latest[stage.op.output] = gathered + own.tail
        for port, value in enumerate(stage.values):
            needed = _needed(own, port, gathered)
            latest[value] = np.minimum(latest.get(value, needed), needed)
            room = _freed(own, port, gathered)
            rooms[Edge(value, stage.op.name, port)] = Room(room, own.beats[port])
    return _finished(flow, latest, rooms)


def _needed(own: StageTiming, port: int, gathered: Array) -> Array:
    """Latest times at which the stage can take the pixels of an input."""
    needs = own.rules[port].needs(FRAMES)
    pixels = np.arange(FRAMES * own.rules[port].pixels)
    first = np.searchsorted(needs, pixels, side="right")
    # Pixels that no output needs may come after the last one, at their own pace.
    ends = np.append(gathered, gathered[-1] + own.leads[port] + own.beats[port] * pixels.size)
    return _spaced_back(ends[first] - own.leads[port], own.beats[port])


def _spaced_back(latest: Array, gap: int) -> Array:
    """The last times that are no later than `latest` and at least `gap` apart."""
    return -_spaced(-latest[::-1], gap)[::-1]
