"""Blocks of channels become blocks of pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class DepthToSpace(Block):
    """[1, C * block**2, H, W] to [1, C, H * block, W * block].

    A memory of two input rows is written in the order of arrival. A row that is complete is read in
    the order of the output; in its last output row the pixels that are done make room one by one.

    Lanes of the input, and then of the output:
    * mode DCR: a divisor of C; the same.
    * mode CRD, or C = 1: a multiple of block**2; that part of it. A word holds all output pixels
      of some channels, and is read once for each of them.
    * 1; 1.

    Latency: 3 cycles from the last beat of a row. Throughput: one beat a cycle at the side that has
    more of them.

    Attributes:
        stream: what arrives.
        block: side of the blocks of pixels.
        column_major: ONNX mode CRD (channel, block row, block column), else DCR.
    """

    stream: TensorStream
    block: int
    column_major: bool = False

    def __post_init__(self) -> None:
        area, lanes = self.block**2, self.stream.lanes
        if self.block < 1 or self.stream.channels % area:
            raise ValueError(f"block size {self.block} for {self.stream.channels} channels")
        if not self.is_whole and lanes > 1 and (self.is_mixed or self.channels % lanes):
            raise ValueError(
                f"{lanes} lanes for blocks of {self.block} and {self.channels} channels"
            )

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return self.stream.channels // self.block**2

    @property
    def is_whole(self) -> bool:
        """Whether a beat holds all output pixels of its channels."""
        fits = self.block > 1 and self.stream.lanes % self.block**2 == 0
        return fits and (self.column_major or self.channels == 1)

    @property
    def is_mixed(self) -> bool:
        """Whether neighbouring channels of the input go to different pixels."""
        return self.column_major and self.block > 1 and self.channels > 1

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        lanes = self.stream.lanes // self.block**2 if self.is_whole else self.stream.lanes
        size = replace(
            self.stream,
            height=self.stream.height * self.block,
            width=self.stream.width * self.block,
        )
        return (replace(size, channels=self.channels, lanes=lanes),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (output,) = self.outputs
        side, (height, width) = self.block, (self.stream.height, self.stream.width)
        if self.column_major:
            split = frames[0].reshape(height, width, self.channels, side, side)
            pixels = split.transpose(0, 3, 1, 4, 2)
        else:
            split = frames[0].reshape(height, width, side, side, self.channels)
            pixels = split.transpose(0, 2, 1, 3, 4)
        return (pixels.reshape(output.beats, output.lanes),)

    def create(self) -> DepthToSpaceComponent:
        return DepthToSpaceComponent(self)

    @property
    def row_words(self) -> int:
        """Words of an input row: its beats."""
        return self.stream.width * self.stream.groups

    @property
    def loops(self) -> tuple[tuple[int, int], ...]:
        """The order of reading, outermost loop first, each with its count and address step:
        the two rows, block row, column, block column, beat of the output pixel."""
        side, groups = self.block, self.stream.groups
        (output,) = self.outputs
        if self.is_whole:
            steps = (0, groups, 0, 1)
        elif self.is_mixed:
            steps = (side, groups, 1, side * side)
        else:
            steps = (side * output.groups, groups, output.groups, 1)
        counts = (side, self.stream.width, side, output.groups)
        return ((2, self.row_words), *zip(counts, steps, strict=True))

    @property
    def cycles(self) -> int:
        return max(self.stream.beats, self.outputs[0].beats)

    @property
    def latency(self) -> int:
        return 3

    @property
    def ram_bits(self) -> int:
        return 2 * self.row_words * self.stream.beat_bits


class DepthToSpaceComponent(wiring.Component):
    """Hardware of `DepthToSpace`. Ports: `i0` and `o0`."""

    def __init__(self, block: DepthToSpace) -> None:
        self._block = block
        (output,) = block.outputs
        super().__init__({"i0": In(block.stream.signature), "o0": Out(output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        words = 2 * block.row_words
        # Nothing is read before its row is complete, nor written before its pixel was read.
        m.submodules.memory = memory = Memory(
            shape=block.stream.beat_bits, depth=words, init=[], attrs={"no_rw_check": 1}
        )
        write = memory.write_port()
        read = memory.read_port(domain="sync")
        move = Signal()
        fetch = Signal()
        fetched = Signal()
        rows = Signal(range(3))
        row_in = Signal()
        row_out = Signal()
        m.d.comb += [
            write.data.eq(self.i0.payload.as_value()),
            write.en.eq(self.i0.valid & self.i0.ready),
            move.eq(~self.o0.valid | self.o0.ready),
            fetch.eq((rows != 0) & (~fetched | move)),
            read.en.eq(fetch),
        ]
        with m.If(row_in & ~row_out):
            m.d.sync += rows.eq(rows + 1)
        with m.Elif(row_out & ~row_in):
            m.d.sync += rows.eq(rows - 1)
        with m.If(fetch):
            m.d.sync += fetched.eq(1)
        with m.Elif(move):
            m.d.sync += fetched.eq(0)

        counters, lasts = self._walk(m, fetch, read.addr)
        pixel_out = Signal()
        m.d.comb += [
            pixel_out.eq(fetch & lasts[1] & lasts[3] & lasts[4]),
            row_out.eq(pixel_out & lasts[2]),
            row_in.eq(self._write(m, write, pixel_out)),
        ]

        word = Signal(block.stream.beat_bits, reset_less=True)
        with m.If(move):
            m.d.sync += [self.o0.valid.eq(fetched), word.eq(read.data)]
        self._select(m, fetch, move, counters[1] * block.block + counters[3], word)
        return m

    def _walk(self, m: Module, step: Signal, address: Value) -> tuple[list[Value], list[Value]]:
        """`address` follows the loops. Counter of each loop, and whether it is in its last turn."""
        loops = self._block.loops
        at = Signal.like(address, name="read_at")
        m.d.comb += address.eq(at)
        counters: list[Value] = []
        lasts: list[Value] = []
        for level, (count, _) in enumerate(loops):
            one = count == 1
            counters.append(Const(0) if one else Signal(range(count), name=f"counter{level}"))
            lasts.append(Const(1) if one else Signal(name=f"last{level}"))
        carry: Value = step
        for (count, _), counter, last in reversed(list(zip(loops, counters, lasts, strict=True))):
            if count > 1:
                with m.If(carry):
                    m.d.sync += [
                        counter.eq(Mux(last, 0, counter + 1)),
                        last.eq(~last if count == 2 else counter == count - 2),
                    ]
                carry = carry & last
        # The innermost loop that goes on decides; when none does the address goes back to 0.
        back = sum((count - 1) * stride for count, stride in loops)
        jump: Value = Const(-back, len(at))
        for (count, stride), last in zip(loops, lasts, strict=True):
            back -= (count - 1) * stride
            if count > 1:
                jump = Mux(last, jump, Const(stride - back, len(at)))
        with m.If(step):
            m.d.sync += at.eq(at + jump)
        return counters, lasts

    def _write(self, m: Module, port: wiring.PureInterface, pixel_out: Signal) -> Value:
        """The address and the free places of the writer; whether it completes a row."""
        block = self._block
        words, groups = 2 * block.row_words, block.stream.groups
        at = Signal(range(words), name="write_at")
        free = Signal(range(words + 1), init=words)
        room = Signal(init=1)
        wraps = at == words - 1
        m.d.comb += [port.addr.eq(at), self.i0.ready.eq(room)]
        with m.If(port.en):
            m.d.sync += at.eq(Mux(wraps, 0, at + 1))
        with m.If(port.en | pixel_out):
            m.d.sync += free.eq(free + Mux(pixel_out, groups, 0) - port.en)
        with m.If(pixel_out):
            m.d.sync += room.eq(1)
        with m.Elif(port.en):
            m.d.sync += room.eq(free != 1)
        return port.en & (wraps | (at == block.row_words - 1))

    def _select(self, m: Module, fetch: Signal, move: Signal, part: Value, word: Signal) -> None:
        """The output: the whole word, or the lanes of one of its output pixels.

        `part`, which pixel that is, follows the word through its two registers. The selection comes
        behind both, as block RAM answers late in the cycle.
        """
        block = self._block
        payload = self.o0.payload.as_value()
        if not block.is_whole:
            m.d.comb += payload.eq(word)
            return
        area, bits = block.block**2, block.stream.element.bits
        fetched_part = Signal(range(area))
        output_part = Signal(range(area))
        with m.If(fetch):
            m.d.sync += fetched_part.eq(part)
        with m.If(move):
            m.d.sync += output_part.eq(fetched_part)
        with m.Switch(output_part):
            for number in range(area):
                with m.Case(number):
                    for lane in range(block.outputs[0].lanes):
                        first = (lane * area + number) * bits
                        m.d.comb += payload[lane * bits : (lane + 1) * bits].eq(
                            word[first : first + bits]
                        )
