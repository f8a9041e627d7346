"""Weights that pass by in the order in which beats arrive."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.hw.block_rams import SHALLOW, banks_of, blocks_of

LOGIC_WORDS = 32
"""A ROM of at most so many words is logic: one or two look-up tables for each bit."""


def rows_together(rows: int, width: int, depth: int) -> int:
    """How many rows share a memory, so that all of them take the fewest block RAMs."""

    def all_blocks(together: int) -> int:
        whole, rest = divmod(rows, together)
        return sum(
            count * blocks_of(bits, depth)
            for count, bits in ((whole, together * width), (1, rest * width))
        )

    return min(range(1, rows + 1), key=lambda together: (all_blocks(together), together))


def _side_by_side(values: Sequence[int], width: int) -> int:
    """One word of several rows, the first row lowest."""
    return sum(value << (index * width) for index, value in enumerate(values))


class WeightRom(wiring.Component):
    """One word of every row for each accepted beat; a pixel has `period` beats.

    A pixel of phase p reads words p * period .. (p + 1) * period - 1 of each row, one for each
    beat. The address is a counter over the pixel; with several phases, a register adds the base of
    the phase. Small ROMs are logic, large ones block RAM with a register behind, deep ones with
    two; rows share a memory where that takes fewer block RAMs.

    Ports:
        accept: a beat is taken in this cycle.
        row_phase, column_phase: of the beat; p = row_phase * column_phases + column_phase.
        words: the words of the beat that was accepted `delay` cycles ago.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], width: int, row_phases: int, column_phases: int
    ) -> None:
        self._rows = rows
        self._width = width
        self._depth = len(rows[0])
        self._phases = (row_phases, column_phases)
        self._period, rest = divmod(self._depth, row_phases * column_phases)
        if rest or not self._period or any(len(row) != self._depth for row in rows):
            raise ValueError("every row has the same number of words for each phase")
        super().__init__(
            {
                "accept": In(1),
                "row_phase": In(unsigned((row_phases - 1).bit_length())),
                "column_phase": In(unsigned((column_phases - 1).bit_length())),
                "words": Out(ArrayLayout(unsigned(width), len(rows))),
            }
        )

    @staticmethod
    def rom_delay(depth: int, phases: int) -> int:
        """Cycles from accepting a beat to its words."""
        return 1 + (phases > 1) + (depth > LOGIC_WORDS) + (depth > SHALLOW)

    @staticmethod
    def ram_bits(rows: int, width: int, depth: int) -> int:
        return rows * width * depth if depth > LOGIC_WORDS else 0

    @property
    def delay(self) -> int:
        return self.rom_delay(self._depth, self._phases[0] * self._phases[1])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = Signal(range(self._period))
        with m.If(self.accept):
            m.d.sync += beat.eq(Mux(beat == self._period - 1, 0, beat + 1))
        address = beat
        if self._depth > self._period:
            address = Signal(range(self._depth), reset_less=True)
            m.d.sync += address.eq(beat + self._base())
        words = [
            Signal(self._width, name=f"word{index}", reset_less=True)
            for index in range(len(self._rows))
        ]
        m.d.comb += [port.eq(word) for port, word in zip(self.words, words, strict=True)]
        if self._depth <= LOGIC_WORDS:
            for word, row in zip(words, self._rows, strict=True):
                m.d.sync += word.eq(Array(Const(value, self._width) for value in row)[address])
            return m
        together = rows_together(len(self._rows), self._width, self._depth)
        for first in range(0, len(self._rows), together):
            rows = self._rows[first : first + together]
            values = [_side_by_side(column, self._width) for column in zip(*rows, strict=True)]
            data = self._read(m, f"rom{first}", values, self._width * len(rows), address)
            m.d.sync += Cat(*words[first : first + together]).eq(data)
        return m

    def _read(
        self, m: Module, name: str, values: Sequence[int], width: int, address: Value
    ) -> Value:
        """A word of a memory, behind the memory and, in deep ones, the register of a bank."""
        banks = banks_of(width, self._depth)
        found: list[Value] = []
        start = 0
        for index, size in enumerate(banks):
            memory = Memory(shape=unsigned(width), depth=size, init=values[start : start + size])
            m.submodules[name if len(banks) == 1 else f"{name}_bank{index}"] = memory
            port = memory.read_port(domain="sync")
            # A bank begins at a multiple of its size: the low bits of the address count in it.
            m.d.comb += port.addr.eq(address)
            data = port.data
            if self._depth > SHALLOW:
                data = Signal(width, name=f"{name}_data{index}", reset_less=True)
                m.d.sync += data.eq(port.data)
            found.append(data)
            start += size
        result = found[-1]
        end = self._depth - banks[-1]
        for index in reversed(range(len(banks) - 1)):
            below = Signal(name=f"{name}_below{index}", reset_less=True)
            late = Signal(name=f"{name}_choose{index}", reset_less=True)
            m.d.sync += [below.eq(address < end), late.eq(below)]
            result = Mux(late, found[index], result)
            end -= banks[index]
        return result

    def _base(self) -> Signal:
        """First word of the phase of the beat at the input."""
        rows, columns = self._phases
        bases = [
            Array(Const((row * columns + column) * self._period) for column in range(columns))
            for row in range(rows)
        ]
        if rows == 1:
            return bases[0][self.column_phase]
        if columns == 1:
            return Array(base[0] for base in bases)[self.row_phase]
        return Array(base[self.column_phase] for base in bases)[self.row_phase]
