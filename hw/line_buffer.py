"""A memory of any depth whose every bank is read into a register of its own."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

BANKED = 512  # words from which on a depth that is no power of two makes two banks


class LineBuffer(wiring.Component):
    """One write and one read a cycle.

    Block RAM comes in powers of two, and its output is late in the cycle. A depth that is no power
    of two is therefore split at the largest one below: each bank fills whole block RAMs, and the
    choice between the banks comes after the registers at their outputs.

    Ports:
        write_enable, write_address, write_data: stored at the end of the cycle.
        read_address: word to be read, in any cycle; one written in the same cycle is undefined.
        read_data: that word, two cycles later, from registers through one multiplexer.
    """

    def __init__(self, depth: int, width: int) -> None:
        self._depth = depth
        self._width = width
        address = unsigned((depth - 1).bit_length())
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(address),
                "write_data": In(unsigned(width)),
                "read_address": In(address),
                "read_data": Out(unsigned(width)),
            }
        )

    @staticmethod
    def ram_bits(depth: int, width: int) -> int:
        """Memory bits."""
        return depth * width

    def elaborate(self, platform: object) -> Module:
        m = Module()
        split = (self._depth - 1).bit_length() - 1
        low = 1 << max(split, 0)
        banked = BANKED < self._depth < 2 * low
        depths = (low, self._depth - low) if banked else (self._depth,)
        words = []
        for bank, depth in enumerate(depths):
            # Nobody uses a word that is read while it is written: no logic shall guard that case.
            m.submodules[f"bank_{bank}"] = memory = Memory(
                shape=unsigned(self._width), depth=depth, init=[], attrs={"no_rw_check": 1}
            )
            write, read = memory.write_port(), memory.read_port()
            here = (self.write_address[split] == bank) if banked else 1
            word = Signal(self._width, name=f"word_{bank}", reset_less=True)
            m.d.comb += [
                write.en.eq(self.write_enable & here),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data),
                read.addr.eq(self.read_address),
                read.en.eq(1),
            ]
            m.d.sync += word.eq(read.data)
            words.append(word)
        if banked:
            upper = [Signal(name=f"upper_{n}", reset_less=True) for n in range(2)]
            m.d.sync += [upper[0].eq(self.read_address[split]), upper[1].eq(upper[0])]
            m.d.comb += self.read_data.eq(Mux(upper[1], words[1], words[0]))
        else:
            m.d.comb += self.read_data.eq(words[0])
        return m
