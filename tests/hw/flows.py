"""Flows of stages without hardware: what schedules and FIFO sizes are tested on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from amaranth.lib import wiring

from qcompile.graph import Op
from qcompile.hw.axis import AxisPattern, copying, sliding
from qcompile.hw.block import Block
from qcompile.hw.raster_walk import raster_walk
from qcompile.hw.stage import Flow, Fold, Stage, raster_demand
from qcompile.hw.streams import Stream, TensorStream, WindowStream
from qcompile.types import Array, IntType

CODE = IntType(6, signed=False)


@dataclass(frozen=True, kw_only=True)
class Model(Block):
    """Figures of a block that nobody builds."""

    sources: tuple[Stream, ...]
    target: Stream
    cost: int
    delay: int = 3
    products: int = 0
    memory: int = 0

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return self.sources

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return (self.target,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        raise AssertionError("a block for the cycle model alone")

    def create(self) -> wiring.Component:
        raise AssertionError("a block for the cycle model alone")

    @property
    def cycles(self) -> int:
        return self.cost

    @property
    def latency(self) -> int:
        return self.delay

    @property
    def ram_bits(self) -> int:
        return self.memory

    @property
    def multipliers(self) -> int:
        return self.products


@dataclass(frozen=True, kw_only=True)
class WindowModel(Model):
    """Figures of a sliding window."""

    rows: AxisPattern
    columns: AxisPattern
    delay: int = 6

    @property
    def buffer_pixels(self) -> int:
        return raster_walk(self.rows, self.columns).span + 4


class Net:
    """A flow, built stage by stage; stages are named after the values they write."""

    def __init__(self, **inputs: TensorStream) -> None:
        self.streams = dict(inputs)
        self.inputs = inputs
        self.stages: list[Stage] = []

    def _add(self, name: str, values: tuple[str, ...], stage: Stage) -> str:
        self.stages.append(stage)
        self.streams[name] = stage.output
        return name

    def _op(self, name: str, *values: str) -> Op:
        return Op(name=name, inputs=values, outputs=(name,))

    def gather(
        self, name: str, value: str, rows: AxisPattern, columns: AxisPattern, groups: int, cost: int
    ) -> str:
        """A window over both axes; `cost` cycles an output pixel."""
        source = self.streams[value]
        target = TensorStream(rows.positions, columns.positions, groups, CODE)
        taps = WindowStream(rows.phase, columns.phase, 1, max(cost, groups), CODE)
        cycles = max(taps.beats, source.beats)
        window = WindowModel(
            sources=(source,), target=taps, cost=cycles, rows=rows, columns=columns
        )
        blocks = (window, Model(sources=(taps,), target=target, cost=taps.beats))
        needed = raster_demand(np.array(rows.highest()), np.array(columns.highest()), columns.size)
        op = self._op(name, value)
        return self._add(name, (value,), Stage(op, (value,), blocks, Fold(1, 1), (needed,)))

    def conv(
        self,
        name: str,
        value: str,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        cost: int = 1,
    ) -> str:
        source = self.streams[value]
        pad = (kernel - 1) * dilation // 2
        rows, columns = (
            sliding(size, kernel, stride, dilation, pad, -(-size // stride))
            for size in (source.height, source.width)
        )
        return self.gather(name, value, rows, columns, groups, max(cost, groups))

    def pool(self, name: str, value: str, factor: int = 2) -> str:
        source = self.streams[value]
        rows, columns = (
            sliding(size, factor, factor, 1, 0, size // factor)
            for size in (source.height, source.width)
        )
        cost = source.groups * factor * factor
        return self.gather(name, value, rows, columns, source.groups, cost)

    def up(self, name: str, value: str, factor: int = 2) -> str:
        source = self.streams[value]
        rows, columns = (
            copying(size, [p // factor for p in range(size * factor)])
            for size in (source.height, source.width)
        )
        return self.gather(name, value, rows, columns, source.groups, source.groups)

    def crop(self, name: str, value: str, top: int, height: int) -> str:
        source = self.streams[value]
        rows = copying(source.height, range(top, top + height))
        columns = copying(source.width, range(source.width))
        return self.gather(name, value, rows, columns, source.groups, source.groups)

    def mean(self, name: str, value: str) -> str:
        """The whole map to one pixel."""
        source = self.streams[value]
        target = replace(source, height=1, width=1)
        block = Model(sources=(source,), target=target, cost=source.beats)
        demand = np.array([source.pixels], dtype=np.int64)
        op = self._op(name, value)
        return self._add(name, (value,), Stage(op, (value,), (block,), Fold(1, 1), (demand,)))

    def point(self, name: str, value: str) -> str:
        """Beat by beat, as a look-up table."""
        source = self.streams[value]
        block = Model(sources=(source,), target=source, cost=source.beats)
        demand = np.arange(1, source.pixels + 1)
        op = self._op(name, value)
        return self._add(name, (value,), Stage(op, (value,), (block,), Fold(1, 1), (demand,)))

    def concat(self, name: str, *values: str) -> str:
        sources = tuple(self.streams[value] for value in values)
        first = sources[0]
        target = replace(first, channels=sum(source.channels for source in sources))
        return self._join(name, values, target)

    def add(self, name: str, *values: str) -> str:
        return self._join(name, values, self.streams[values[0]])

    def _join(self, name: str, values: tuple[str, ...], target: TensorStream) -> str:
        sources = tuple(self.streams[value] for value in values)
        block = Model(sources=sources, target=target, cost=target.beats)
        demand = np.arange(1, target.pixels + 1)
        op = self._op(name, *values)
        stage = Stage(op, values, (block,), Fold(1, 1), (demand,) * len(values))
        return self._add(name, values, stage)

    def gate(self, name: str, value: str, pixel: str) -> str:
        """A product with one pixel that is repeated."""
        source, single = self.streams[value], self.streams[pixel]
        rows, columns = copying(1, (0,) * source.height), copying(1, (0,) * source.width)
        repeat = WindowModel(
            sources=(single,), target=source, cost=source.beats, rows=rows, columns=columns
        )
        block = Model(sources=(source, source), target=source, cost=source.beats)
        demand = (np.arange(1, source.pixels + 1), np.ones(source.pixels, dtype=np.int64))
        op = self._op(name, value, pixel)
        values = (value, pixel)
        stage = Stage(op, values, (block,), Fold(1, 1), demand, ((), (repeat,)))
        return self._add(name, values, stage)

    def flow(self, *outputs: str) -> Flow:
        return Flow(dict(self.inputs), tuple(self.stages), outputs)


def image(height: int, width: int, groups: int = 1) -> TensorStream:
    return TensorStream(height, width, groups, CODE)


def unet(size: int, levels: int, groups: int = 1, cost: int = 1) -> Flow:
    """Two 3x3 convolutions a level, pooling, up-sampling and concat with the skip."""
    net = Net(x=image(size, size, groups))
    value, skips = "x", []
    for level in range(levels):
        value = net.conv(f"a{level}", value, groups=groups, cost=cost)
        value = net.conv(f"b{level}", value, groups=groups, cost=cost)
        skips.append(value)
        value = net.pool(f"p{level}", value)
    value = net.conv("m0", value, groups=groups, cost=cost)
    value = net.conv("m1", value, groups=groups, cost=cost)
    for level in reversed(range(levels)):
        value = net.up(f"u{level}", value)
        value = net.concat(f"c{level}", skips[level], value)
        value = net.conv(f"d{level}", value, groups=groups, cost=cost)
        value = net.conv(f"e{level}", value, groups=groups, cost=cost)
    return net.flow(net.conv("out", value, 1))
