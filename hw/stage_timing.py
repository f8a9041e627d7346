"""One stage in the cycle model: what it waits for at each input, and how long it takes.

Counts are of pixels; times are the clock cycles in which the last beat of a pixel is transferred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.hw.axis import AxisPattern
from qcompile.hw.block import Block
from qcompile.hw.raster_walk import RasterWalk, raster_walk
from qcompile.hw.softmax import Softmax
from qcompile.hw.stage import Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.window import RELEASE_LATENCY
from qcompile.types import Array

FRAMES = 3
"""Frames back to back: one fills the network, the others tell the steady state."""


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
