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

from qcompile.hw.stage import Flow
from qcompile.hw.stage_timing import FRAMES, StageTiming, timing
from qcompile.hw.streams import TensorStream
from qcompile.types import Array


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
