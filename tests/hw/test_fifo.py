import random
from collections import deque
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from qcompile.hw.fifo import Fifo
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.types import IntType
from tests.hw.drive import check_block, memory_bits, random_frame, simulate

NARROW = TensorStream(3, 4, 2, IntType(5))
WIDE = TensorStream(4, 4, 48, IntType(6, signed=False), 24)
WINDOW = WindowStream((0, 1), (0, 0, 1), 2, 3, IntType(4, signed=False), 20)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 8, 20])
def test_small(depth: int) -> None:
    block = Fifo(NARROW, depth)
    assert not block.is_large
    assert block.ram_bits == (5 * (depth - 1) if depth > 2 else 0)
    check_block(block, np.random.default_rng(depth), cycles_tolerance=0)


@pytest.mark.parametrize(("depth", "words"), [(4, 2), (5, 3), (6, 4), (13, 11), (18, 16)])
def test_large(depth: int, words: int) -> None:
    block = Fifo(WIDE, depth)
    assert block.is_large
    assert block.ram_bits == 144 * words
    check_block(block, np.random.default_rng(depth), cycles_tolerance=0)


def test_the_flags_of_windows_pass() -> None:
    for depth in (2, 9):
        check_block(Fifo(WINDOW, depth), np.random.default_rng(depth), cycles_tolerance=0)


@pytest.mark.parametrize("depth", [*range(1, 10), 17, 64, 100])
@pytest.mark.parametrize("stream", [NARROW, WIDE], ids=["narrow", "wide"])
def test_capacity_is_exactly_the_depth(stream: TensorStream, depth: int) -> None:
    """Filled twice, by a source that never waits, before and after part of it left."""
    component = Fifo(stream, depth).create()

    async def bench(ctx: Any) -> None:
        async def fill() -> int:
            accepted = 0
            for _ in range(depth + 12):
                accepted += ctx.get(component.i0.ready)
                await ctx.tick()
            assert ctx.get(component.level) == depth
            return accepted

        ctx.set(component.i0.valid, 1)
        assert await fill() == depth
        ctx.set(component.i0.valid, 0)
        ctx.set(component.o0.ready, 1)
        half = (depth + 1) // 2
        for _ in range(half):
            assert ctx.get(component.o0.valid)
            await ctx.tick()
        ctx.set(component.o0.ready, 0)
        assert ctx.get(component.level) == depth - half
        ctx.set(component.i0.valid, 1)
        assert await fill() == half

    _run(component, bench)


@pytest.mark.parametrize("depth", [1027, 1030, 1100])
def test_deep_ones_are_several_in_a_row(depth: int) -> None:
    """A memory of 1024 words, and what is left, down to a FIFO that must not be slow."""
    block = Fifo(WIDE, depth)
    segments = block.segments
    assert len(segments) == 2
    assert sum(segment.depth for segment in segments) == depth
    assert min(segment.depth for segment in segments) > 1
    test_capacity_is_exactly_the_depth(WIDE, depth)
    assert memory_bits(block.create()) == block.ram_bits
    frame = random_frame(WIDE, np.random.default_rng(depth))
    result = simulate(block, frame, frames=2, valid=1.0, ready=1.0)
    assert result.frame_cycles == (WIDE.beats,)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stream", [NARROW, WIDE], ids=["narrow", "wide"])
def test_long_random_runs_match_a_queue(stream: TensorStream, depth: int) -> None:
    """Order, level and flags against a model, while bursts on either side fill and drain it."""
    component = Fifo(stream, depth).create()
    rng = random.Random(depth)
    payload_in, payload_out = Value.cast(component.i0.payload), Value.cast(component.o0.payload)

    async def bench(ctx: Any) -> None:
        model: deque[int] = deque()
        seen = set()
        burst_in = burst_out = 0.5
        for cycle in range(700):
            if cycle % 25 == 0:
                burst_in, burst_out = rng.choice((0.1, 0.5, 1.0)), rng.choice((0.1, 0.5, 1.0))
            offer, take = rng.random() < burst_in, rng.random() < burst_out
            item = rng.getrandbits(stream.beat_bits)
            ctx.set(component.i0.valid, offer)
            ctx.set(payload_in, item)
            ctx.set(component.o0.ready, take)
            assert ctx.get(component.level) == len(model)
            assert ctx.get(component.i0.ready) == (len(model) < depth)
            seen.add(len(model))
            if ctx.get(component.o0.valid):
                assert ctx.get(payload_out) == model[0]
                if take:
                    model.popleft()
            if offer and ctx.get(component.i0.ready):
                model.append(item)
            await ctx.tick()
        assert seen == set(range(depth + 1))

    _run(component, bench)


@pytest.mark.parametrize("stream", [NARROW, WIDE], ids=["narrow", "wide"])
def test_latency(stream: TensorStream) -> None:
    for depth in (1, 2, 4, 16):
        block = Fifo(stream, depth)
        frame = random_frame(stream, np.random.default_rng(0))
        result = simulate(block, frame)
        assert result.offered[0][0] - result.accepted[0][0] == block.latency


def test_depth_is_positive() -> None:
    with pytest.raises(ValueError, match="0 beats"):
        Fifo(NARROW, 0)


def _run(component: Any, bench: Any) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
