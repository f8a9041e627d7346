"""The arithmetic of the threshold epilogue: how many thresholds a sum reaches, pipelined."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.parameter_rom import ParameterRom, delayed
from qcompile.hw.streams import element_shape
from qcompile.numerics import Thresholds
from qcompile.types import IntType

ADDENDS = 4
"""Numbers that are added in one stage."""


class CountThresholds(wiring.Component):
    """Codes of `lanes` sums a cycle; free-running, without flow control.

    Stages: thresholds are read (2 cycles from block RAM, else 1); all are compared; the reached
    ones are counted, four numbers a stage; the count becomes the code (none where it is the code).
    Each ends in a register.

    Ports:
        word: which channels arrive: word * lanes .. word * lanes + lanes - 1.
        sums: the sums.
        codes: the results, `stages` cycles later.
    """

    def __init__(
        self,
        epilogue: Thresholds,
        accumulator: IntType,
        element: IntType,
        channels: int,
        lanes: int,
    ) -> None:
        self._epilogue = epilogue
        self._element = element
        self._lanes = lanes
        self._columns = columns(epilogue, accumulator, channels, lanes)
        self._stages = stages(epilogue, accumulator, channels, lanes)
        self._rom = ParameterRom(self._columns)
        super().__init__(
            {
                "word": In(self._rom.word.shape()),
                "sums": In(data.ArrayLayout(element_shape(accumulator), lanes)),
                "codes": Out(data.ArrayLayout(element_shape(element), lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = self._rom
        m.d.comb += self._rom.word.eq(self.word)
        for lane in range(self._lanes):
            code, latency = self._lane(m, lane)
            assert latency == self._stages
            m.d.comb += self.codes[lane].eq(code)
        return m

    def _lane(self, m: Module, lane: int) -> tuple[Value, int]:
        """The pipeline of one lane, and its length."""

        def registered(value: Value, name: str) -> Value:
            signal = Signal(value.shape(), name=f"{name}{lane}", reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        epilogue, at = self._epilogue, self._rom.latency
        sum_ = delayed(m, Value.cast(self.sums[lane]), at, f"sum{lane}")
        limits = [self._rom.value(f"limit{k}_{lane}") for k in range(len(epilogue.thresholds))]
        counts = [
            registered(Value.cast(sum_ >= limit), f"reached{k}_") for k, limit in enumerate(limits)
        ]
        at += 1
        while len(counts) > 1:
            level = len(counts)
            counts = [
                registered(_sum(counts[k : k + ADDENDS]), f"count{level}_{k}_")
                for k in range(0, level, ADDENDS)
            ]
            at += 1
        count = counts[0] if counts else Const(0)
        if _is_count(epilogue):
            return count, at
        code = Signal(element_shape(self._element), name=f"code{lane}", reset_less=True)
        m.d.sync += code.eq(epilogue.low + epilogue.step * count)
        return code, at + 1


def columns(
    epilogue: Thresholds, accumulator: IntType, channels: int, lanes: int
) -> dict[str, tuple[int, ...]]:
    """The thresholds by name, as one word for each `lanes` channels.

    Raises:
        ValueError: a threshold has neither one entry nor one per channel.
    """
    words = channels // lanes
    found = {"none": (0,) * words}
    for k, limits in enumerate(epilogue.thresholds):
        if len(limits) not in (1, channels):
            raise ValueError(f"{len(limits)} thresholds for {channels} channels")
        # Equal for every sum, and hardly wider than it.
        limits = tuple(min(max(t, accumulator.low), accumulator.high + 1) for t in limits)
        for lane in range(lanes):
            found[f"limit{k}_{lane}"] = limits * words if len(limits) == 1 else limits[lane::lanes]
    return found


def stages(epilogue: Thresholds, accumulator: IntType, channels: int, lanes: int) -> int:
    """Cycles from `sums` to `codes`."""
    found = 3 if ParameterRom.ram_bits(columns(epilogue, accumulator, channels, lanes)) else 2
    count = len(epilogue.thresholds)
    while count > 1:
        count = -(-count // ADDENDS)
        found += 1
    return found if _is_count(epilogue) else found + 1


def _is_count(epilogue: Thresholds) -> bool:
    return epilogue.low == 0 and epilogue.step == 1


def _sum(values: list[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
