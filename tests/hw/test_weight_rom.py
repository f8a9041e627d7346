"""Weights arrive in order and in time, whatever the shape of the memories."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from qcompile.hw.block_rams import banks_of
from qcompile.hw.weight_rom import WeightRom, rows_together
from tests.hw.drive import memory_bits

SHAPES = [
    # rows, width, beats of a pixel, row phases, column phases
    (3, 5, 20, 1, 1),
    (4, 16, 144, 1, 1),
    (3, 5, 350, 1, 2),
    (2, 33, 700, 2, 1),
    (1, 8, 1100, 1, 1),
    (2, 8, 2304, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_words_follow_the_beats(shape: tuple[int, int, int, int, int]) -> None:
    rows, width, period, row_phases, column_phases = shape
    rng = random.Random(period)
    phases = row_phases * column_phases
    depth = period * phases
    data = [[rng.randrange(1 << width) for _ in range(depth)] for _ in range(rows)]
    rom = WeightRom(data, width, row_phases, column_phases)
    sent: list[int] = []

    async def drive(ctx: Any) -> None:
        """Beats with pauses; each one's words are due `delay` cycles after it."""
        due: list[tuple[int, int]] = []
        position = phase = cycle = 0
        while len(sent) < 2 * period:
            accept = rng.random() < 0.8
            ctx.set(rom.accept, accept)
            ctx.set(rom.row_phase, phase // column_phases)
            ctx.set(rom.column_phase, phase % column_phases)
            if accept:
                due.append((cycle + rom.delay, phase * period + position))
                position += 1
                if position == period:
                    position, phase = 0, rng.randrange(phases)
            await ctx.tick()
            cycle += 1
            while due and due[0][0] == cycle:
                address = due.pop(0)[1]
                assert [ctx.get(word) for word in rom.words] == [row[address] for row in data]
                sent.append(address)

    simulator = Simulator(rom)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert memory_bits(rom) == WeightRom.ram_bits(rows, width, depth)


@pytest.mark.parametrize("depth", [600, 1024, 5000, 9216, 16384, 20000, 70000])
@pytest.mark.parametrize("width", [4, 8, 36, 40])
def test_banks_begin_at_multiples_of_their_size(width: int, depth: int) -> None:
    banks = banks_of(width, depth)
    assert sum(banks) == depth
    start = 0
    for size in banks[:-1]:
        assert size & (size - 1) == 0
        assert start % size == 0
        start += size
    assert len(banks) == 1 or banks[-1] < banks[-2] or banks[-2] == 16384


def test_narrow_rows_share_block_rams() -> None:
    assert rows_together(4, 16, 144) == 2  # 32 of 36 bits, 512 words
    assert rows_together(1, 16, 144) == 1
