"""The AXI4-Stream ends: bytes outside, beats inside, frames that are cut short or run on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from amaranth.lib import data
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator

from qcompile.hw.axi_stream import FrameInput, FrameOutput, RegisterSlice, data_bits, element_bytes
from qcompile.hw.streams import TensorStream, pack_lanes
from qcompile.types import IntType

Beat = tuple[int, int]
STALLS = [(1.0, 1.0), (0.4, 0.8), (0.8, 0.3)]
TENSORS = [
    TensorStream(3, 4, 2, IntType(8, signed=False), 2),
    TensorStream(2, 3, 3, IntType(5), 3),
    TensorStream(1, 2, 4, IntType(6, signed=False), 1),
    TensorStream(2, 2, 2, IntType(12), 1),
    TensorStream(1, 1, 4, IntType(4, narrow=True), 4),
]


def run(component: Component, body: Any) -> None:
    """Simulates `body(ctx)`."""
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(body)
    simulator.run()


def feed(
    part: FrameInput,
    beats: list[Beat],
    expected: int,
    stalls: tuple[float, float] = (1.0, 1.0),
    seed: int = 1,
) -> tuple[list[int], dict[str, int]]:
    """Sends (tdata, tlast) beats until `expected` beats came out; counts the events."""
    rng = random.Random(seed)
    received: list[int] = []
    events = dict.fromkeys(("begun", "early", "late", "range"), 0)

    async def body(ctx: Any) -> None:
        ctx.set(part.allow, 1)
        sent, waiting, quiet = 0, None, 0
        offered = False
        while quiet < 60:
            quiet += 1
            if not offered and sent < len(beats) and rng.random() < stalls[0]:
                offered = True
                ctx.set(part.tdata, beats[sent][0])
                ctx.set(part.tlast, beats[sent][1])
            ctx.set(part.tvalid, offered)
            ready = rng.random() < stalls[1]
            ctx.set(part.o.ready, ready)
            valid = ctx.get(part.o.valid)
            payload = ctx.get(part.o.payload.as_value())
            if waiting is not None:
                assert (valid, payload) == (1, waiting), "changed while it waited"
            waiting = payload if valid and not ready else None
            if valid and ready:
                received.append(payload)
                quiet = 0
            if offered and ctx.get(part.tready):
                sent, offered, quiet = sent + 1, False, 0
            for name in events:
                events[name] += ctx.get(getattr(part, name))
            await ctx.tick()
        assert sent == len(beats)

    run(part, body)
    assert len(received) == expected
    return received, events


def frame_of(tensor: TensorStream, rng: np.random.Generator) -> np.ndarray:
    element = tensor.element
    return rng.integers(element.low, element.high + 1, (tensor.beats, tensor.lanes))


def outer(tensor: TensorStream, frame: np.ndarray) -> list[Beat]:
    beats = pack_lanes(frame, 8 * element_bytes(tensor))
    return [(beat, int(index == len(beats) - 1)) for index, beat in enumerate(beats)]


@pytest.mark.parametrize("stalls", STALLS)
def test_register_slice(stalls: tuple[float, float]) -> None:
    part = RegisterSlice(data.StructLayout({"value": 8}))
    rng = random.Random(3)
    items = [rng.randrange(256) for _ in range(100)]
    received: list[int] = []
    cycles = 0

    async def body(ctx: Any) -> None:
        nonlocal cycles
        sent, offered = 0, False
        await ctx.tick()  # not ready in the first cycle, as in reset
        while len(received) < len(items):
            cycles += 1
            assert cycles < 2000
            if not offered and sent < len(items) and rng.random() < stalls[0]:
                offered = True
                ctx.set(part.i.payload.value, items[sent])
            ctx.set(part.i.valid, offered)
            ready = rng.random() < stalls[1]
            before = ctx.get(part.i.ready)
            ctx.set(part.o.ready, ready)
            assert ctx.get(part.i.ready) == before, "ready must come from a register"
            if ctx.get(part.o.valid) and ready:
                received.append(ctx.get(part.o.payload.value))
            if offered and before:
                sent, offered = sent + 1, False
            await ctx.tick()

    run(part, body)
    assert received == items
    if stalls == (1.0, 1.0):
        assert cycles == len(items) + 1  # one cycle of latency, then one beat a cycle


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("tensor", TENSORS, ids=str)
def test_frames_in(tensor: TensorStream, stalls: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    frames = [frame_of(tensor, rng) for _ in range(3)]
    beats = [beat for frame in frames for beat in outer(tensor, frame)]
    received, events = feed(FrameInput(tensor), beats, 3 * tensor.beats, stalls)
    assert received == [beat for frame in frames for beat in tensor.pack(frame)]
    assert events == {"begun": 3, "early": 0, "late": 0, "range": 0}


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("length", [1, 4, 11])
def test_a_short_frame_is_filled_and_the_next_one_is_whole(
    length: int, stalls: tuple[float, float]
) -> None:
    tensor = TENSORS[0]
    rng = np.random.default_rng(6)
    first, second = frame_of(tensor, rng), frame_of(tensor, rng)
    short = [
        (beat, int(index == length - 1)) for index, (beat, _) in enumerate(outer(tensor, first))
    ]
    beats = short[:length] + outer(tensor, second)
    received, events = feed(FrameInput(tensor), beats, 2 * tensor.beats, stalls)
    filled = tensor.pack(first)[:length] + [0] * (tensor.beats - length)
    assert received == filled + tensor.pack(second)
    assert events == {"begun": 2, "early": 1, "late": 0, "range": 0}


def test_a_long_frame_is_followed_by_whole_ones() -> None:
    tensor = TENSORS[0]
    rng = np.random.default_rng(7)
    first, second = frame_of(tensor, rng), frame_of(tensor, rng)
    long = [(beat, 0) for beat, _ in outer(tensor, first)] + [(1, 0), (2, 1)]
    received, events = feed(FrameInput(tensor), long + outer(tensor, second), 3 * tensor.beats)
    assert received[: tensor.beats] == tensor.pack(first)
    assert received[tensor.beats : 2 * tensor.beats] == [1, 2] + [0] * (tensor.beats - 2)
    assert received[2 * tensor.beats :] == tensor.pack(second)
    assert events == {"begun": 3, "early": 1, "late": 1, "range": 0}


def test_a_sender_without_tlast_works() -> None:
    tensor = TENSORS[1]
    rng = np.random.default_rng(8)
    frames = [frame_of(tensor, rng) for _ in range(3)]
    beats = [(beat, 0) for frame in frames for beat, _ in outer(tensor, frame)]
    received, events = feed(FrameInput(tensor), beats, 3 * tensor.beats)
    assert received == [beat for frame in frames for beat in tensor.pack(frame)]
    assert events == {"begun": 3, "early": 0, "late": 3, "range": 0}


@pytest.mark.parametrize(
    ("element", "wrong"),
    [
        (IntType(6, signed=False), [0x40, 0xFF, 0x80]),
        (IntType(5), [0x10, 0xEF, 0x80]),  # 16, -17, -128
        (IntType(4, narrow=True), [0xF8, 0x08]),  # -8, 8
        (IntType(8, narrow=True), [0x80]),
    ],
    ids=str,
)
def test_elements_outside_the_type_are_reported(element: IntType, wrong: list[int]) -> None:
    tensor = TensorStream(1, 1, 2, element, 2)
    for value in wrong:
        for lane in range(2):
            part = FrameInput(tensor)
            _, events = feed(part, [(value << (8 * lane), 1)], 1)
            assert events["range"] == 1, (element, value)
    for value in range(element.low, element.high + 1):
        _, events = feed(FrameInput(tensor), [((value & 0xFF) << 8, 1)], 1)
        assert events["range"] == 0


def test_no_frame_begins_unless_allowed_and_a_begun_one_ends() -> None:
    tensor = TENSORS[0]
    part = FrameInput(tensor)
    taken = [0]

    async def body(ctx: Any) -> None:
        async def cycles(count: int) -> None:
            for _ in range(count):
                taken[0] += ctx.get(part.o.valid) and ctx.get(part.o.ready)
                await ctx.tick()

        ctx.set(part.tvalid, 1)
        ctx.set(part.o.ready, 1)
        await cycles(30)
        assert taken[0] == 0
        ctx.set(part.allow, 1)
        await cycles(3)
        ctx.set(part.allow, 0)
        await cycles(60)
        assert taken[0] == tensor.beats
        ctx.set(part.o.ready, 0)
        ctx.set(part.allow, 1)
        await cycles(1)
        ctx.set(part.allow, 0)  # what was offered stays offered
        assert ctx.get(part.o.valid) == 1

    run(part, body)


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("tensor", TENSORS, ids=str)
def test_frames_out(tensor: TensorStream, stalls: tuple[float, float]) -> None:
    rng = np.random.default_rng(9)
    frames = [frame_of(tensor, rng) for _ in range(3)]
    part = FrameOutput(tensor)
    assert len(part.tdata) == data_bits(tensor) == 8 * element_bytes(tensor) * tensor.lanes
    items = [beat for frame in frames for beat in tensor.pack(frame)]
    received: list[Beat] = []
    done = 0
    noise = random.Random(10)

    async def body(ctx: Any) -> None:
        nonlocal done
        sent, offered, quiet = 0, False, 0
        while quiet < 60:
            quiet += 1
            if not offered and sent < len(items) and noise.random() < stalls[0]:
                offered = True
                ctx.set(part.i.payload.as_value(), items[sent])
            ctx.set(part.i.valid, offered)
            ready = noise.random() < stalls[1]
            ctx.set(part.tready, ready)
            if ctx.get(part.tvalid) and ready:
                received.append((ctx.get(part.tdata), ctx.get(part.tlast)))
                quiet = 0
            if offered and ctx.get(part.i.ready):
                sent, offered, quiet = sent + 1, False, 0
            done += ctx.get(part.done)
            await ctx.tick()

    run(part, body)
    assert received == [beat for frame in frames for beat in outer(tensor, frame)]
    assert done == 3
