"""A queue between two blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.block_rams import banks_of
from qcompile.hw.streams import Stream
from qcompile.types import Array

SMALL_BITS = 256
"""Up to this many bits a memory is read without a clock (registers or LUT-RAM)."""

SHALLOW = 3
"""Up to this depth the extra cycles of a block RAM would cost throughput."""


@dataclass(frozen=True, slots=True)
class Fifo(Block):
    """Holds up to `depth` beats, exactly: what waits in output registers counts as well.

    Two forms, both with registered `ready`, `valid` and payload. A small one is an output register
    before a memory of depth - 1 words that is read without a clock (one register for depth 2).
    A larger one is a block RAM of depth - 2 words, the register of its read port, and the output
    register. One so deep that block RAMs would follow each other is several FIFOs in a row, each
    with a memory of a power of two: nothing is chosen behind the late outputs of block RAMs.

    Latency: 1 cycle small, 3 cycles large, the sum in a row. Throughput: one beat a cycle, but
    every other cycle for depth 1. Ports besides `i0` and `o0`: `level`, out, the beats inside.

    Attributes:
        stream: what arrives and leaves, a TensorStream or a WindowStream.
        depth: beats, at least 1.
    """

    stream: Stream
    depth: int

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"a FIFO of {self.depth} beats")

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return (self.stream,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return (frames[0],)

    def create(self) -> wiring.Component:
        return FifoComponent(self) if len(self.segments) == 1 else FifoRow(self)

    @property
    def width(self) -> int:
        """Bits of a beat."""
        return int(self.stream.layout.size)

    @property
    def is_large(self) -> bool:
        """Whether the beats wait in a memory with a clocked read port."""
        return self.depth > SHALLOW and self.width * (self.depth - 2) > SMALL_BITS

    @property
    def segments(self) -> tuple[Fifo, ...]:
        """The FIFOs in a row that hold `depth` beats together; usually one, this one."""
        depths = []
        rest = self.depth
        while self.width * rest > SMALL_BITS:
            first = banks_of(self.width, rest - 2)[0] + 2
            if first >= rest:
                break
            # A last FIFO of one beat would be slow.
            first -= rest - first == 1
            depths.append(first)
            rest -= first
        if not depths:
            return (self,)
        return tuple(Fifo(self.stream, depth) for depth in (*depths, rest))

    @property
    def words(self) -> int:
        """Words of the memory of a single FIFO, 0 if there is none."""
        if self.is_large:
            return self.depth - 2
        return self.depth - 1 if self.depth > 2 else 0

    @property
    def cycles(self) -> int:
        return self.stream.beats * (2 if self.depth == 1 else 1)

    @property
    def latency(self) -> int:
        if len(self.segments) > 1:
            return sum(segment.latency for segment in self.segments)
        return 3 if self.is_large else 1

    @property
    def ram_bits(self) -> int:
        if len(self.segments) > 1:
            return sum(segment.ram_bits for segment in self.segments)
        return self.words * self.width


class FifoRow(wiring.Component):
    """Hardware of a deep `Fifo`: several in a row. Ports as those of one."""

    def __init__(self, block: Fifo) -> None:
        self._block = block
        signature = block.stream.signature
        super().__init__(
            {"i0": In(signature), "o0": Out(signature), "level": Out(range(block.depth + 1))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offer = wiring.flipped(self.i0)
        levels = []
        for index, segment in enumerate(self._block.segments):
            m.submodules[f"segment{index}"] = part = FifoComponent(segment)
            wiring.connect(m, offer, part.i0)
            offer = part.o0
            levels.append(part.level)
        wiring.connect(m, offer, wiring.flipped(self.o0))
        m.d.comb += self.level.eq(sum(levels))
        return m


class FifoComponent(wiring.Component):
    """Hardware of `Fifo`. Ports: `i0`, `o0`, and `level`, the number of beats inside."""

    def __init__(self, block: Fifo) -> None:
        self._block = block
        signature = block.stream.signature
        super().__init__(
            {"i0": In(signature), "o0": Out(signature), "level": Out(range(block.depth + 1))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self._block.depth
        push = Signal()
        pop = Signal()
        room = Signal(init=1)
        m.d.comb += [
            self.i0.ready.eq(room),
            push.eq(self.i0.valid & room),
            pop.eq(self.o0.valid & self.o0.ready),
        ]
        with m.If(push & ~pop):
            m.d.sync += [self.level.eq(self.level + 1), room.eq(self.level != depth - 1)]
        with m.Elif(pop & ~push):
            m.d.sync += [self.level.eq(self.level - 1), room.eq(1)]
        output = Signal(self._block.width, reset_less=True)
        m.d.comb += self.o0.payload.as_value().eq(output)
        move = Signal()
        m.d.comb += move.eq(~self.o0.valid | self.o0.ready)
        if self._block.is_large:
            self._behind_block_ram(m, push, move, output)
        else:
            self._behind_registers(m, push, move, output)
        return m

    def _behind_registers(self, m: Module, push: Signal, move: Signal, output: Signal) -> None:
        """The output register takes the arriving beat unless others wait."""
        item = self.i0.payload.as_value()
        waiting = Signal()
        write = Signal()
        m.d.comb += write.eq(push & (waiting | ~move))
        if self._block.depth == 1:
            stored: Any = item
        elif self._block.words:
            stored = self._memory(m, write, item, waiting & move, domain="comb")
        else:
            stored = Signal(self._block.width, name="stored", reset_less=True)
            with m.If(write):
                m.d.sync += stored.eq(item)
        with m.If(move):
            m.d.sync += [output.eq(Mux(waiting, stored, item)), self.o0.valid.eq(waiting | push)]
        if self._block.depth > 1:
            with m.If(write):
                m.d.sync += waiting.eq(1)
            with m.Elif(move):
                # One beat is in the output register, so the second is the last that waits.
                m.d.sync += waiting.eq(waiting & (self.level != 2))

    def _behind_block_ram(self, m: Module, push: Signal, move: Signal, output: Signal) -> None:
        """memory -> register of the read port (`fetched`) -> output register."""
        filled = Signal()
        fetched = Signal()
        fetch = Signal()
        m.d.comb += fetch.eq(filled & (~fetched | move))
        data = self._memory(m, push, self.i0.payload.as_value(), fetch, domain="sync")
        with m.If(move):
            m.d.sync += [output.eq(data), self.o0.valid.eq(fetched)]
        with m.If(fetch):
            m.d.sync += fetched.eq(1)
        with m.Elif(move):
            m.d.sync += fetched.eq(0)
        # No second counter: what is not in one of the two registers is in the memory.
        behind = Signal(2)
        last_word = Signal()
        m.d.comb += [
            behind.eq(fetched + self.o0.valid + 1),
            last_word.eq((self.level[2:] == 0) & (self.level[:2] == behind)),
        ]
        with m.If(push):
            m.d.sync += filled.eq(1)
        with m.Elif(fetch):
            m.d.sync += filled.eq(~last_word)

    def _memory(self, m: Module, write: Any, item: Any, read: Any, domain: str) -> Any:
        """A ring; returns the word at its read end, with a clocked port that of the last `read`.

        It never reads the word that it writes: there is no read when it is empty, no write when it
        is full. The attribute tells Yosys, which would add a bypass.
        """
        words = self._block.words
        m.submodules.memory = memory = Memory(
            shape=self._block.width, depth=words, init=[], attrs={"no_rw_check": 1}
        )
        write_port = memory.write_port()
        read_port = memory.read_port(domain=domain)
        m.d.comb += [write_port.en.eq(write), write_port.data.eq(item)]
        if domain == "sync":
            m.d.comb += read_port.en.eq(read)
        for port, step, name in ((write_port, write, "write_at"), (read_port, read, "read_at")):
            address = Signal(range(words), name=name)
            m.d.comb += port.addr.eq(address)
            with m.If(step):
                m.d.sync += address.eq(Mux(address == words - 1, 0, address + 1))
        return read_port.data
