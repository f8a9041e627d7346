"""Sliding window: the taps of each output pixel, out of a circular buffer of input pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.axis import AxisPattern
from qcompile.hw.axis_sequencer import AxisSequencer
from qcompile.hw.block import Block
from qcompile.hw.line_buffer import LineBuffer
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.raster_walk import RasterWalk, raster_walk
from qcompile.hw.streams import TensorStream, WindowStream, pack_lanes
from qcompile.hw.window_cycles import frame_cycles
from qcompile.hw.window_tables import WindowTables
from qcompile.types import Array

READ_LATENCY = 5  # cycles from the decision to read a word to its offer
RELEASE_LATENCY = 3  # cycles from reading a pixel for the last time to room for another one


@dataclass(frozen=True)
class Window(Block):
    """For each output pixel the input pixels under a window, word by word, once for each fold.

    A word is one beat of the input; a pixel has CG = channels / lanes of them, a group
    c = CG / groups. For each output pixel in raster order, for each group g, `folds` times: for
    each row tap, for each column tap, the words g * c .. g * c + c - 1 of that input pixel, or
    `pad_value` in all lanes where the tap lies outside.

    Input pixels are kept in a circular buffer of `depth` words: as many pixels as the walk needs at
    once and a slack of a few words' time, which keeps the writer busy while a pixel is released.
    A pixel is released as soon as no later output pixel reads it.

    Ports: i0 (TensorStream), o0 (WindowStream). Throughput: one beat a cycle on either side.
    Latency: 6 cycles.

    Attributes:
        stream: the input.
        rows: how output rows read input rows.
        columns: how output columns read input columns.
        groups: parts of the channels that the taps are walked for one after the other.
        folds: how often each part is repeated.
        pad_value: what taps outside read.
        extra: further pixels of buffer. Where the walk asks for input unevenly (a stride in the
            rows), a buffer that is no larger than needed makes the writer wait for some rows and
            the reader for others; one more row of the input lets them run at the same time.
    """

    stream: TensorStream
    rows: AxisPattern
    columns: AxisPattern
    groups: int = 1
    folds: int = 1
    pad_value: int = 0
    extra: int = 0

    def __post_init__(self) -> None:
        if (self.rows.size, self.columns.size) != (self.stream.height, self.stream.width):
            raise ValueError("the patterns are not those of an input of this height and width")
        if self.groups < 1 or self.stream.groups % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {self.stream.groups} words")
        if self.folds < 1:
            raise ValueError(f"{self.folds} folds")
        if self.extra < 0:
            raise ValueError(f"{self.extra} extra pixels")
        if not self.stream.element.low <= self.pad_value <= self.stream.element.high:
            raise ValueError(f"padding with {self.pad_value}, which is no {self.stream.element}")

    @property
    def words(self) -> int:
        """Words of a group of a pixel."""
        return self.stream.groups // self.groups

    @cached_property
    def output(self) -> WindowStream:
        return WindowStream(
            row_phases=self.rows.phase,
            column_phases=self.columns.phase,
            folds=self.groups * self.folds,
            fold_beats=self.rows.taps * self.columns.taps * self.words,
            element=self.stream.element,
            lanes=self.stream.lanes,
        )

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[WindowStream]:
        return (self.output,)

    @property
    def walk(self) -> RasterWalk:
        return raster_walk(self.rows, self.columns)

    @cached_property
    def tables(self) -> WindowTables:
        return WindowTables(self.walk, self.groups, self.words, self.depth)

    @property
    def demand(self) -> Array:
        """Input pixels that must have arrived before each output pixel: int64 [output pixels]."""
        return self.walk.needed.reshape(-1)

    @property
    def slack(self) -> int:
        """Pixels of the buffer beyond those that the walk needs at once."""
        return 1 + -(-RELEASE_LATENCY // self.stream.groups)

    @property
    def buffer_pixels(self) -> int:
        """Pixels of the buffer."""
        return self.walk.span + self.slack + self.extra

    @property
    def depth(self) -> int:
        """Words of the buffer."""
        return self.buffer_pixels * self.stream.groups

    @cached_property
    def cycles(self) -> int:
        return frame_cycles(
            self.walk,
            self.buffer_pixels,
            self.stream.groups,
            self.output.pixel_beats,
            RELEASE_LATENCY,
        )

    @property
    def latency(self) -> int:
        return 1 + READ_LATENCY

    @property
    def ram_bits(self) -> int:
        queue = OutputQueue.ram_bits(self.output.layout.size, READ_LATENCY + 1)
        return (
            LineBuffer.ram_bits(self.depth, self.stream.beat_bits)
            + queue
            + AxisSequencer.ram_bits(self.tables.row_words, self.tables.row_layout.size)
            + AxisSequencer.ram_bits(self.tables.column_words, self.tables.column_layout.size)
        )

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        height, width, lanes = self.stream.height, self.stream.width, self.stream.lanes
        pixels = frame.reshape(height, width, self.groups, self.words, lanes)
        shape = (self.rows.positions, self.columns.positions, self.groups, self.folds)
        taps = (self.rows.taps, self.columns.taps, self.words, lanes)
        result = np.full(shape + taps, self.pad_value, dtype=np.int64)
        for y in range(self.rows.positions):
            for ky, row in enumerate(self.rows.sources(y)):
                for x in range(self.columns.positions):
                    for kx, column in enumerate(self.columns.sources(x)):
                        if row is not None and column is not None:
                            result[y, x, :, :, ky, kx] = pixels[row, column][:, None]
        return (result.reshape(self.output.beats, lanes),)

    def create(self) -> wiring.Component:
        return WindowComponent(self)


class WindowComponent(wiring.Component):
    """The hardware of `Window`.

    Counters say, one beat ahead, which loop ends; the address follows by adding the distance to the
    next word, modulo the depth. Two registers stand for all flow control: `surplus`, the pixels
    that have arrived beyond those the current output pixel needs, and `room`, the free pixels of
    the buffer (less one); their signs say whether to wait.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        super().__init__({"i0": In(window.stream.signature), "o0": Out(window.output.signature)})

    def elaborate(self, platform: object) -> Module:
        window = self._window
        walk, tables = window.walk, window.tables
        depth, bits = window.depth, window.stream.beat_bits
        m = Module()
        m.submodules.buffer = buffer = LineBuffer(depth, bits)
        m.submodules.queue = queue = OutputQueue(window.output.layout, READ_LATENCY + 1)
        m.submodules.rows = rows = AxisSequencer(tables.row_words, tables.row_layout.size)
        m.submodules.columns = columns = AxisSequencer(
            tables.column_words, tables.column_layout.size
        )
        wiring.connect(m, wiring.flipped(self.o0), queue.o)
        row = data.View(tables.row_layout, rows.current)
        next_row = data.View(tables.row_layout, rows.next)
        column = data.View(tables.column_layout, columns.current)
        next_column = data.View(tables.column_layout, columns.next)

        # Loops, one beat a step: which of them end with this beat.
        go = Signal()
        word_end = _loop(m, "word", window.words, go)
        tap_end = go & word_end
        column_end = _loop(m, "column_tap", window.columns.taps, tap_end)
        tap_row_end = tap_end & column_end
        row_end = _loop(m, "row_tap", window.rows.taps, tap_row_end)
        fold_done = tap_row_end & row_end
        fold_end = _loop(m, "fold", window.folds, fold_done)
        group_end = _loop(m, "group", window.groups, fold_done & fold_end)
        pixel_done = Signal()
        line_done = Signal()
        m.d.comb += [
            pixel_done.eq(fold_done & fold_end & group_end),
            line_done.eq(pixel_done & column.last),
            columns.advance.eq(pixel_done),
            rows.advance.eq(line_done),
        ]
        row_valid = _mask(m, window.rows, "row", tap_row_end, line_done, next_row)
        column_valid = _mask(m, window.columns, "column", tap_end, pixel_done, next_column)

        # May this beat be read? The first one of a pixel waits until all it needs has arrived.
        first = Signal(init=1)
        ready = rows.ready & columns.ready
        arrived = Signal()
        least = -int(max(walk.needed[0, 0], *(steps.max() for steps in walk.need_steps), 0))
        most = int((window.buffer_pixels + walk.released - walk.needed).max())
        surplus = Signal(
            signed(max(most.bit_length(), (-least).bit_length()) + 1), init=-int(walk.needed[0, 0])
        )
        need = Mux(column.last, row.need, Mux(row.acquiring, column.need, 0))
        m.d.comb += go.eq(queue.available & ready & ~(first & surplus[-1]))
        m.d.sync += surplus.eq(surplus + arrived - Mux(pixel_done, need, 0))
        with m.If(go):
            m.d.sync += first.eq(pixel_done)

        # First stage: the distance from this word to the next one, and what is released after it.
        valid = Signal(3)
        m.d.sync += valid.eq(Cat(go, valid))
        address_shape = unsigned((depth - 1).bit_length())
        jump = Signal(address_shape, reset_less=True)
        distance: Value = Mux(column.last, row.jump, column.jump)
        for condition, constant in (
            (group_end, tables.group),
            (fold_end, tables.fold),
            (row_end, tables.row_tap),
            (column_end, tables.column_tap),
            (word_end, 1),
        ):
            distance = Mux(condition, distance, constant)
        m.d.sync += jump.eq(distance)
        released = Mux(column.last, row.release, Mux(row.releasing, column.release, 0))
        release = [Signal.like(released, name=f"release_{n}") for n in range(2)]
        m.d.sync += [release[0].eq(Mux(pixel_done, released, 0)), release[1].eq(release[0])]
        flags = Cat(
            ~(row_valid & column_valid),
            word_end & column_end & row_end,
            row.phase,
            column.phase,
        )
        stages = [Signal.like(flags, name=f"flags_{n}", reset_less=True) for n in range(4)]
        for stage, before in zip(stages, (flags, *stages), strict=False):
            m.d.sync += stage.eq(before)

        # Second stage: the same distance less the depth, for the modulo. Third: address and read.
        jump_up = Signal(address_shape, reset_less=True)
        jump_down = Signal(signed(address_shape.width + 1), reset_less=True)
        m.d.sync += [jump_up.eq(jump), jump_down.eq(jump - depth)]
        address = Signal(address_shape, init=tables.start)
        up = Signal(address_shape)
        down = Signal(signed(address_shape.width + 1))
        m.d.comb += [up.eq(address + jump_up), down.eq(address + jump_down)]
        with m.If(valid[1]):
            m.d.sync += address.eq(Mux(down[-1], up, down))
        m.d.comb += buffer.read_address.eq(address)

        # Fourth: the output of the memory, into its register. Fifth: padding, into the queue.
        pushed = Signal()
        m.d.sync += pushed.eq(valid[2])
        padded, *rest = stages[3]
        lanes, element = window.stream.lanes, window.stream.element
        (padding,) = pack_lanes(np.full((1, lanes), window.pad_value), element.bits)
        m.d.comb += [
            queue.reserve.eq(go),
            queue.push.eq(pushed),
            Value.cast(queue.item).eq(Cat(Mux(padded, padding, buffer.read_data), *rest)),
        ]

        # The writing side.
        m.d.comb += arrived.eq(self._write(m, buffer, release[1]))
        return m

    def _write(self, m: Module, buffer: LineBuffer, release: Signal) -> Value:
        """Fills the buffer; returns whether a pixel is complete with this beat."""
        window, walk = self._window, self._window.walk
        before = np.append(0, walk.needed.reshape(-1))
        before[0] = 0
        later = np.append(walk.released.reshape(-1), walk.pixels + walk.released[0, 0])
        most = window.buffer_pixels + int((later - np.maximum(before, 0)).max())
        room = Signal(
            signed(most.bit_length() + 1),
            init=window.buffer_pixels + int(walk.released[0, 0]) - 1,
        )
        accept = self.i0.valid & self.i0.ready
        address = Signal(range(window.depth), name="write_address")
        wrap = Signal()
        m.d.comb += [
            self.i0.ready.eq(~room[-1]),
            buffer.write_address.eq(address),
            buffer.write_data.eq(self.i0.payload),
            buffer.write_enable.eq(accept),
        ]
        with m.If(accept):
            m.d.sync += [
                wrap.eq(address == window.depth - 2),
                address.eq(Mux(wrap, 0, address + 1)),
            ]
        arrived = accept & _loop(m, "write_word", window.stream.groups, accept)
        m.d.sync += room.eq(room + release - arrived)
        return arrived


def _loop(m: Module, name: str, count: int, advance: Value) -> Value:
    """A loop of `count` steps; whether the current step is the last one, from a register."""
    if count == 1:
        return Const(1)
    left = Signal(signed((count - 2).bit_length() + 1), init=count - 2, name=f"{name}_left")
    with m.If(advance):
        m.d.sync += left.eq(Mux(left[-1], count - 2, left - 1))
    return left[-1]


def _mask(
    m: Module, pattern: AxisPattern, name: str, tap_done: Value, done: Value, following: data.View
) -> Value:
    """Whether the current tap lies inside: the mask of the position turns from tap to tap."""
    if all(all(pattern.valid(p)) for p in range(pattern.positions)):
        return Const(1)
    first = sum(1 << k for k, inside in enumerate(pattern.valid(0)) if inside)
    mask = Signal(pattern.taps, init=first, name=f"{name}_mask")
    with m.If(tap_done):
        m.d.sync += mask.eq(mask.rotate_right(1))
    with m.If(done):
        m.d.sync += mask.eq(following.mask)
    return mask[0]
