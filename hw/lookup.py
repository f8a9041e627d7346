"""A table with one entry for each input code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.parameter_rom import ParameterRom, delayed
from qcompile.hw.streams import TensorStream
from qcompile.types import Array, IntType, Range

LOGIC_WORDS = 64
"""Up to this many entries are logic: four LUTs for each bit where a block RAM would be empty."""


@dataclass(frozen=True)
class Lookup(Block):
    """y = table[x - lowest], with one table or one for each channel.

    Each lane has its own copy of its channels' tables, addressed by the low bits of the code itself
    (the copy is rotated, so nothing is subtracted) and the number of the beat within its pixel.

    Latency: 3 cycles, 4 with block RAM. Throughput: one beat a cycle. Ports: `i0`, `o0`.

    Attributes:
        input: the codes; all those of its type that the table lacks never arrive.
        table: [1][T] or [C][T].
        lowest: the code of entry 0.
        element: of the entries.
    """

    input: TensorStream
    table: tuple[tuple[int, ...], ...]
    lowest: int
    element: IntType

    def __post_init__(self) -> None:
        if len(self.table) not in (1, self.input.channels):
            raise ValueError(f"{len(self.table)} tables for {self.input.channels} channels")
        if len({len(row) for row in self.table}) != 1 or not self.table[0]:
            raise ValueError("tables differ in length or are empty")
        values = Range(min(map(min, self.table)), max(map(max, self.table)))
        if not self.element.range.contains(values):
            raise ValueError(f"{self.element} does not hold {values.low}..{values.high}")

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        shape = self.input
        return TensorStream(shape.height, shape.width, shape.channels, self.element, shape.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        index = frame.reshape(-1, self.input.channels) - self.lowest
        if index.min() < 0:
            raise IndexError(f"code {index.min() + self.lowest} lies before the table")
        rows = np.arange(self.input.channels) if len(self.table) > 1 else 0
        return (np.asarray(self.table, dtype=np.int64)[rows, index].reshape(frame.shape),)

    def create(self) -> wiring.Component:
        return LookupUnit(self)

    @property
    def code_bits(self) -> int:
        """Low bits of a code that tell all codes of the table apart."""
        return (len(self.table[0]) - 1).bit_length()

    @property
    def groups(self) -> int:
        """Tables of one lane."""
        return self.input.groups if len(self.table) > 1 else 1

    def columns(self, lane: int) -> dict[str, tuple[int, ...]]:
        """The read-only memory of a lane: word `group << code_bits | low bits of the code`."""
        size = 1 << self.code_bits
        rows = self.table[lane :: self.input.lanes] if len(self.table) > 1 else self.table
        words: list[int] = []
        for row in rows:
            # Entries that no code reaches repeat one, so that a constant table stays constant.
            turned = [row[0]] * size
            for entry, value in enumerate(row):
                turned[(self.lowest + entry) % size] = value
            words += turned
        return {"entry": tuple(words)}

    @property
    def stages(self) -> int:
        """Registers before the queue: the input's and those of the memory."""
        return 3 if self.rom_bits else 2

    @property
    def rom_bits(self) -> int:
        """Bits of the tables that are memories."""
        lanes = range(self.input.lanes)
        return sum(ParameterRom.ram_bits(self.columns(lane), LOGIC_WORDS) for lane in lanes)

    @property
    def queue_depth(self) -> int:
        """Places for all beats on their way, so that none waits for a place."""
        return self.stages + 2

    @property
    def cycles(self) -> int:
        return self.input.beats

    @property
    def latency(self) -> int:
        return self.stages + 1

    @property
    def ram_bits(self) -> int:
        return self.rom_bits + OutputQueue.ram_bits(self.output.beat_bits, self.queue_depth)


class LookupUnit(wiring.Component):
    """Hardware of `Lookup`."""

    def __init__(self, block: Lookup) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        m.submodules.queue = queue = OutputQueue(block.output.layout, block.queue_depth)
        m.submodules.group = group = BeatCounter(block.groups)
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        item = Signal(block.input.layout, reset_less=True)
        taken = Signal()
        arrived = Signal(block.stages)
        m.d.comb += [
            self.i0.ready.eq(queue.available),
            taken.eq(self.i0.valid & self.i0.ready),
            queue.reserve.eq(taken),
            queue.push.eq(arrived[-1]),
            group.step.eq(arrived[0]),
        ]
        m.d.sync += [arrived.eq(Cat(taken, arrived)), item.eq(self.i0.payload)]
        for lane in range(block.input.lanes):
            rom = ParameterRom(block.columns(lane), LOGIC_WORDS)
            m.submodules[f"table{lane}"] = rom
            code = Signal(block.code_bits, name=f"code{lane}")
            m.d.comb += [code.eq(item[lane]), rom.word.eq(Cat(code, group.value))]
            # The table of one lane may be constant, and faster than those of the others.
            wait = block.stages - 1 - rom.latency
            entry = delayed(m, rom.value("entry"), wait, f"entry{lane}")
            m.d.comb += queue.item[lane].eq(entry)
        return m
