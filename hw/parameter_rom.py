"""Constants that change with the beat: one word of named columns for each position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amaranth.hdl import Cat, Const, Module, Shape, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.hw import delay

LOGIC_WORDS = 32
"""Up to this many words are logic, more are a memory."""


class ParameterRom(wiring.Component):
    """A free-running read-only memory of named columns.

    Columns that hold the same value in every word are constants and cost nothing. The others are
    logic behind one register (up to `LOGIC_WORDS` words), or side by side in one block RAM whose
    output is registered once more, as block RAM answers late in the cycle.

    Ports:
        word: which word to read.
        one output for each column, named like it, `latency` cycles after `word`.

    Args:
        columns: name -> its value in each word; at least one column, all of the same length.
        logic_words: up to how many words it is logic.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[int]], logic_words: int = LOGIC_WORDS
    ) -> None:
        self._logic_words = logic_words
        self._columns = {name: tuple(values) for name, values in columns.items()}
        (self._words,) = {len(values) for values in self._columns.values()}
        super().__init__(
            {
                "word": In(range(self._words)),
                **{name: Out(column_shape(values)) for name, values in self._columns.items()},
            }
        )

    @property
    def latency(self) -> int:
        return 2 if self._in_memory else 1

    @property
    def _in_memory(self) -> bool:
        return self.ram_bits(self._columns, self._logic_words) > 0

    def value(self, name: str) -> Value:
        """The output of a column, or its constant."""
        values = self._columns[name]
        if _varies(values):
            return Value.cast(getattr(self, name))
        return Const(values[0], column_shape(values))

    @staticmethod
    def ram_bits(columns: Mapping[str, Sequence[int]], logic_words: int = LOGIC_WORDS) -> int:
        """Memory bits of the ROM of these columns."""
        if len(next(iter(columns.values()))) <= logic_words:
            return 0
        return sum(column_shape(v).width * len(v) for v in columns.values() if _varies(v))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        varying = {name: values for name, values in self._columns.items() if _varies(values)}
        for name, values in self._columns.items():
            if name not in varying:
                m.d.comb += getattr(self, name).eq(values[0])
        if not varying:
            return m
        if self._in_memory:
            words = [self._packed(varying, word) for word in range(self._words)]
            width = sum(column_shape(values).width for values in varying.values())
            m.submodules.memory = memory = Memory(
                shape=unsigned(width), depth=self._words, init=words
            )
            port = memory.read_port(domain="sync")
            m.d.comb += port.addr.eq(self.word)
            m.d.sync += Cat(getattr(self, name) for name in varying).eq(port.data)
            return m
        packed = Signal(sum(column_shape(values).width for values in varying.values()))
        with m.Switch(self.word):
            for word in range(self._words - 1):
                with m.Case(word):
                    m.d.comb += packed.eq(self._packed(varying, word))
            with m.Default():
                m.d.comb += packed.eq(self._packed(varying, self._words - 1))
        m.d.sync += Cat(getattr(self, name) for name in varying).eq(packed)
        return m

    @staticmethod
    def _packed(varying: Mapping[str, tuple[int, ...]], word: int) -> int:
        """All varying columns of one word, the first in the lowest bits."""
        result, offset = 0, 0
        for values in varying.values():
            width = column_shape(values).width
            result |= (values[word] & ((1 << width) - 1)) << offset
            offset += width
        return result


def column_shape(values: Sequence[int]) -> Shape:
    """The smallest shape that holds all values."""
    return Shape.cast(range(min(values), max(values) + 1))


def _varies(values: Sequence[int]) -> bool:
    return any(value != values[0] for value in values)


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` cycles ago; constants need no registers."""
    if isinstance(value, Const):
        return value
    return Value.cast(delay.delayed(m, value, cycles, name))
