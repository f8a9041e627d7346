"""Quotients, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from qcompile.hw.divider import Divider

LATENCIES = {(8, 1): 8, (8, 3): 9, (8, 8): 8, (8, 20): 20, (1, 1): 1, (15, 4): 16}


@pytest.mark.parametrize(("bits", "interval"), LATENCIES)
def test_every_quotient_is_rounded_down(bits: int, interval: int) -> None:
    """One division each `interval` cycles; the quotient is there for one cycle."""
    rng = np.random.default_rng(bits)
    denominators = rng.integers(1, 1 << 11, 40)
    most = (denominators << bits) - 1
    numerators = rng.integers(0, most, endpoint=True)
    numerators[:2], numerators[2:4] = 0, most[2:4]
    unit = Divider(bits, 11, interval)
    latency = Divider.latency_of(bits, interval)
    assert latency == LATENCIES[bits, interval]
    found: list[int] = []

    async def bench(ctx: Any) -> None:
        for cycle in range(len(numerators) * interval + latency):
            division, rest = divmod(cycle, interval)
            begins = rest == 0 and division < len(numerators)
            ctx.set(unit.start, begins)
            ctx.set(unit.numerator, int(numerators[division]) if begins else cycle)
            ctx.set(unit.denominator, int(denominators[division]) if begins else cycle)
            if cycle >= latency and (cycle - latency) % interval == 0:
                found.append(ctx.get(unit.quotient))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found[: len(numerators)] == (numerators // denominators).tolist()
