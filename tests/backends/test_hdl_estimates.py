"""Estimates of area: what is counted exactly, and how far the rest may be off."""

from __future__ import annotations

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Array, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from qcompile.backends.hdl.estimates import estimate, estimate_component, ram_blocks, total
from qcompile.backends.hdl.netlist import Area
from qcompile.backends.hdl.operators import MemoryShape, operators_of
from qcompile.devices import DEVICES, Device
from qcompile.hw.fifo import Fifo
from qcompile.hw.gearbox import Gearbox
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType

ECP5, ZYNQ, UP5K, HX8K = (
    DEVICES[name] for name in ("ecp5-85k", "xc7z020", "ice40-up5k", "ice40-hx8k")
)


class Everything(wiring.Component):  # type: ignore[misc]
    """One operator of each kind."""

    def __init__(self) -> None:
        super().__init__(
            {
                "a": In(signed(6)),
                "b": In(signed(6)),
                "choice": In(3),
                "product": Out(signed(12)),
                "result": Out(signed(8)),
                "word": Out(12),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=unsigned(12), depth=100, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.addr.eq(self.choice), write.en.eq(1), write.data.eq(self.a)]
        m.d.comb += [read.addr.eq(self.choice), self.word.eq(read.data)]
        table = Array(Const(value, 5) for value in (3, 1, 4, 1, 5, 9, 2, 6))
        m.d.sync += self.product.eq(self.a * self.b)
        with m.If(self.a < self.b):
            m.d.sync += self.result.eq(Mux(self.choice == 5, self.a, self.a + self.b))
        with m.Elif(self.b == 3):
            m.d.sync += self.result.eq(table[self.choice])
        constant = Signal(12)
        m.d.comb += constant.eq(self.a * 5)
        return m


def test_operators_of_a_design() -> None:
    found = operators_of(rtlil.convert(Everything()))
    assert found.registers == 12 + 8
    assert found.products == [(6, 6)]
    assert found.comparisons == 6
    assert found.choices == 7
    assert found.sums == 7
    # The register takes one of two values; which is free where it keeps its own, and one bit each.
    assert found.cases == 8
    assert found.tables == [(5, 8)]
    assert found.memories == [MemoryShape(12, 100, True, False)]


@pytest.mark.parametrize(
    ("width", "depth", "device", "blocks"),
    [
        # What yosys 0.23 took for memories of these sizes.
        (36, 512, ECP5, 1),
        (36, 700, ECP5, 2),
        (72, 1024, ECP5, 4),
        (48, 700, ECP5, 3),
        (36, 2100, ECP5, 5),
        (9, 2100, ECP5, 2),
        (16, 4096, ECP5, 4),
        (96, 1998, ECP5, 11),
        (36, 1024, ZYNQ, 2),
        (72, 512, ZYNQ, 2),
        (18, 1024, UP5K, 5),
    ],
)
def test_block_rams_of_a_memory(width: int, depth: int, device: Device, blocks: int) -> None:
    assert ram_blocks(width, depth, device) == blocks


def fifo(depth: int) -> Fifo:
    return Fifo(TensorStream(64, 64, 8, IntType(6, False), 8), depth)


@pytest.mark.parametrize(
    ("depth", "measured"),
    [(512, Area(91, 80, 2, 0)), (16, Area(86, 113, 0, 0))],
)
def test_a_fifo_is_close_to_what_was_measured(depth: int, measured: Area) -> None:
    found = estimate(fifo(depth), ECP5)
    assert (found.ffs, found.ram_blocks) == (measured.ffs, measured.ram_blocks)
    assert found.luts == pytest.approx(measured.luts, rel=0.5)


def test_multipliers_become_luts_where_there_are_none() -> None:
    with_them, without = (
        estimate_component(Everything(), UP5K),
        estimate_component(Everything(), HX8K),
    )
    assert (with_them.multipliers, without.multipliers) == (1, 0)
    assert without.luts - with_them.luts == pytest.approx(1.3 * 6 * 6, abs=1)


def test_every_family_has_a_formula() -> None:
    for device in DEVICES.values():
        area = estimate_component(Everything(), device)
        assert 20 < area.luts < 400, device.name
        assert area.multipliers == min(1, device.multipliers)


def test_estimates_add_up() -> None:
    blocks = (fifo(16), Gearbox(TensorStream(8, 8, 16, IntType(6, False), 2), 8))
    areas = [estimate(block, ECP5) for block in blocks]
    both = total(areas)
    assert both.luts == sum(area.luts for area in areas)
    assert both.ffs == 113 + 88
