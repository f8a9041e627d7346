"""The registers over AXI4-Lite, alone and in the IP."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from qcompile.hw.accelerator import Accelerator
from qcompile.hw.axi_stream import element_bytes
from qcompile.hw.control import (
    IDENTITY,
    TENSORS_AT,
    VERSION,
    Registers,
    address,
    address_bits,
    register_map,
    tensor_words,
)
from qcompile.hw.design import Design, Node
from qcompile.hw.fifo import Fifo
from qcompile.hw.streams import TensorStream, pack_lanes
from qcompile.hw.top import Top
from qcompile.types import Array, IntType

IMAGE = TensorStream(2, 3, 4, IntType(5), 2)
CLASSES = TensorStream(2, 3, 1, IntType(2, signed=False), 1)


class Bus:
    """An AXI4-Lite master; `tick` is one clock cycle."""

    def __init__(self, ctx: Any, part: Any, tick: Callable[[], Any], prefix: str = "") -> None:
        self.ctx, self.part, self.tick, self.prefix = ctx, part, tick, prefix

    def port(self, name: str) -> Any:
        return getattr(self.part, self.prefix + name)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self.ctx.set(self.port(name), value)

    async def until(self, name: str) -> None:
        for _ in range(50):
            if self.ctx.get(self.port(name)):
                return
            await self.tick()
        raise AssertionError(f"{name} never came")

    async def read(self, where: int, pause: int = 0) -> int:
        self.set(araddr=where, arvalid=1, rready=0)
        await self.until("arready")
        await self.tick()
        self.set(arvalid=0, araddr=0)
        await self.until("rvalid")
        value = int(self.ctx.get(self.port("rdata")))
        for _ in range(pause):
            await self.tick()
            assert self.ctx.get(self.port("rvalid")) == 1
            assert self.ctx.get(self.port("rdata")) == value
        self.set(rready=1)
        assert self.ctx.get(self.port("rresp")) == 0
        await self.tick()
        self.set(rready=0)
        assert self.ctx.get(self.port("rvalid")) == 0
        return value

    async def write(
        self, where: int, value: int, strobe: int = 15, late: str = "", pause: int = 0
    ) -> None:
        """`late`: the channel ("aw" or "w") that comes three cycles after the other one."""
        self.set(awaddr=where, wdata=value, wstrb=strobe, bready=0)
        self.set(awvalid=int(late != "aw"), wvalid=int(late != "w"))
        for _ in range(3):
            if late:
                assert not self.ctx.get(self.port("awready"))
                await self.tick()
        self.set(awvalid=1, wvalid=1)
        await self.until("awready")
        assert self.ctx.get(self.port("wready")) == 1
        await self.tick()
        self.set(awvalid=0, wvalid=0)
        await self.until("bvalid")
        for _ in range(pause):
            await self.tick()
            assert self.ctx.get(self.port("bvalid")) == 1
        self.set(bready=1)
        assert self.ctx.get(self.port("bresp")) == 0
        await self.tick()
        self.set(bready=0)


def simulate(part: Registers, body: Callable[[Any, Bus], Any]) -> None:
    async def testbench(ctx: Any) -> None:
        await body(ctx, Bus(ctx, part, ctx.tick))

    simulator = Simulator(part)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def test_constants_and_unknown_addresses() -> None:
    part = Registers([IMAGE], [CLASSES, IMAGE], build=0xDEADBEEF)

    async def body(ctx: Any, bus: Bus) -> None:
        assert await bus.read(address("ID")) == IDENTITY
        assert IDENTITY.to_bytes(4, "big") == b"QCOM"
        assert await bus.read(address("VERSION"), pause=3) == VERSION
        assert await bus.read(address("BUILD")) == 0xDEADBEEF
        assert await bus.read(address("TENSORS")) == 0x0201
        for index, tensor in enumerate((IMAGE, CLASSES, IMAGE)):
            for word, value in enumerate(tensor_words(tensor)):
                assert await bus.read(TENSORS_AT + 16 * index + 4 * word) == value
        assert tensor_words(IMAGE) == (4, 2, 3, 5 | 1 << 8 | 1 << 12 | 2 << 16)
        for unknown in (0x2C, 0x3C, TENSORS_AT + 48, 0xFC):
            await bus.write(unknown, 0xFFFFFFFF)
            assert await bus.read(unknown) == 0

    simulate(part, body)


def test_the_register_map_has_no_overlaps() -> None:
    offsets = [register.offset for register in register_map(8, 8)]
    assert len(set(offsets)) == len(offsets)
    assert all(offset % 4 == 0 for offset in offsets)
    assert max(offsets) < 1 << address_bits(16)


@pytest.mark.parametrize("late", ["", "aw", "w"])
def test_control_bits(late: str) -> None:
    part = Registers([IMAGE], [CLASSES])
    resets = [0]

    async def body(ctx: Any, bus: Bus) -> None:
        plain_tick = bus.tick

        async def tick() -> None:
            resets[0] += ctx.get(part.soft_reset)
            await plain_tick()

        bus.tick = tick
        assert await bus.read(address("CONTROL")) == 1
        await bus.write(address("CONTROL"), 0, late=late, pause=2)
        assert ctx.get(part.enable) == 0
        assert await bus.read(address("CONTROL")) == 0
        await bus.write(address("CONTROL"), 1, strobe=0b1110)
        assert ctx.get(part.enable) == 0, "not strobed"
        await bus.write(address("CONTROL"), 3, late=late)
        assert await bus.read(address("CONTROL")) == 1
        assert resets[0] == 1

    simulate(part, body)


def test_errors_stay_until_cleared() -> None:
    part = Registers([IMAGE, CLASSES], [CLASSES])

    async def body(ctx: Any, bus: Bus) -> None:
        async def pulse(name: str, value: int) -> None:
            ctx.set(getattr(part, name), value)
            await ctx.tick()
            ctx.set(getattr(part, name), 0)

        await pulse("early", 0b01)
        await pulse("late", 0b10)
        await pulse("range", 0b11)
        assert await bus.read(address("ERRORS")) == 0b0110_0101
        assert await bus.read(address("STATUS")) == 2
        await bus.write(address("ERRORS"), 0b0100_0001)
        assert await bus.read(address("ERRORS")) == 0b0010_0100
        await bus.write(address("ERRORS"), 0xFF, strobe=0b1110)
        assert await bus.read(address("ERRORS")) == 0b0010_0100
        await bus.write(address("ERRORS"), 0xFF)
        assert await bus.read(address("STATUS")) == 0

    simulate(part, body)


def test_counters() -> None:
    part = Registers([IMAGE], [CLASSES])

    async def body(ctx: Any, bus: Bus) -> None:
        async def pulse(*names: str) -> None:
            for name in names:
                ctx.set(getattr(part, name), 1)
            await ctx.tick()
            for name in names:
                ctx.set(getattr(part, name), 0)

        await pulse("begun")
        await ctx.tick().repeat(9)
        await pulse("begun")
        await ctx.tick().repeat(20)
        await pulse("done")
        assert await bus.read(address("LATENCY")) == 31
        assert await bus.read(address("INTERVAL")) == 0
        assert await bus.read(address("STATUS")) == 1
        assert (await bus.read(address("FRAMES_IN")), await bus.read(address("FRAMES_OUT"))) == (
            2,
            1,
        )
        await pulse("begun", "done")
        await ctx.tick().repeat(6)
        await pulse("done")
        assert await bus.read(address("INTERVAL")) == 7
        assert await bus.read(address("LATENCY")) == 7
        assert await bus.read(address("STATUS")) == 0
        await bus.write(address("CONTROL"), 3)
        for name in ("FRAMES_IN", "FRAMES_OUT", "LATENCY", "INTERVAL", "ERRORS"):
            assert await bus.read(address(name)) == 0

    simulate(part, body)


def delay_line() -> Design:
    """The image through a FIFO."""
    node = Node("image_fifo", Fifo(IMAGE, 8), ("image",), ("copy",))
    return Design("delay_line", {"image": IMAGE}, {"copy": IMAGE}, (node,), {"image": "image"})


def in_top(body: Callable[[Any, Top, Any], Any]) -> None:
    """Simulates the IP around `delay_line`; its clock is a port, so it is toggled here."""
    top = Top(Accelerator(delay_line()), [("s_axis", IMAGE)], [("m_axis", IMAGE)], 1)
    m = Module()
    m.submodules.dut = top

    async def testbench(ctx: Any) -> None:
        async def tick() -> None:
            ctx.set(top.aclk, 1)
            await ctx.delay(5e-9)
            ctx.set(top.aclk, 0)
            await ctx.delay(5e-9)

        await tick()
        await tick()
        ctx.set(top.aresetn, 1)
        await body(ctx, top, tick)

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


def tdata(frame: Array) -> list[int]:
    return pack_lanes(frame, 8 * element_bytes(IMAGE))


async def transfer(
    ctx: Any, top: Top, tick: Any, frames: list[Array], rng: random.Random, limit: int = 2000
) -> list[tuple[int, int]]:
    """Sends whole frames with random stalls and returns the (tdata, tlast) that leave."""
    beats = [beat for frame in frames for beat in tdata(frame)]
    received: list[tuple[int, int]] = []
    sent, offered = 0, False
    for _ in range(limit):
        if not offered and sent < len(beats) and rng.random() < 0.6:
            offered = True
            ctx.set(top.s_axis_tdata, beats[sent])
            ctx.set(top.s_axis_tlast, sent % IMAGE.beats == IMAGE.beats - 1)
        ctx.set(top.s_axis_tvalid, offered)
        ctx.set(top.m_axis_tready, rng.random() < 0.6)
        if ctx.get(top.m_axis_tvalid) and ctx.get(top.m_axis_tready):
            received.append((ctx.get(top.m_axis_tdata), ctx.get(top.m_axis_tlast)))
        if offered and ctx.get(top.s_axis_tready):
            sent, offered = sent + 1, False
        await tick()
        if len(received) == len(beats):
            break
    ctx.set(top.s_axis_tvalid, 0)
    return received


def random_frames(count: int) -> list[Array]:
    rng = np.random.default_rng(4)
    return [rng.integers(-16, 16, (IMAGE.beats, IMAGE.lanes)) for _ in range(count)]


def test_frames_through_the_ip_and_what_its_registers_say() -> None:
    async def body(ctx: Any, top: Top, tick: Any) -> None:
        frames = random_frames(3)
        received = await transfer(ctx, top, tick, frames, random.Random(1))
        assert [beat for beat, _ in received] == [beat for f in frames for beat in tdata(f)]
        lasts = [index for index, (_, last) in enumerate(received) if last]
        assert lasts == [IMAGE.beats * (k + 1) - 1 for k in range(3)]
        for _ in range(4):
            await tick()
        bus = Bus(ctx, top, tick, "s_axil_")
        assert await bus.read(address("FRAMES_IN")) == 3
        assert await bus.read(address("FRAMES_OUT")) == 3
        assert await bus.read(address("STATUS")) == 0
        assert 0 < await bus.read(address("LATENCY")) < 300

    in_top(body)


@pytest.mark.parametrize("soft", [True, False])
def test_a_reset_in_mid_frame_leaves_nothing_behind(soft: bool) -> None:
    async def body(ctx: Any, top: Top, tick: Any) -> None:
        rng = random.Random(2)
        frames = random_frames(3)
        await transfer(ctx, top, tick, frames, rng, limit=23)
        bus = Bus(ctx, top, tick, "s_axil_")
        assert await bus.read(address("STATUS")) & 1 == 1
        if soft:
            await bus.write(address("CONTROL"), 3)
        else:
            ctx.set(top.aresetn, 0)
            await tick()
            ctx.set(top.aresetn, 1)
        for _ in range(3):
            await tick()
        assert ctx.get(top.m_axis_tvalid) == 0
        assert await bus.read(address("STATUS")) == 0
        received = await transfer(ctx, top, tick, frames, rng)
        assert [beat for beat, _ in received] == [beat for f in frames for beat in tdata(f)]
        for _ in range(4):
            await tick()
        assert await bus.read(address("FRAMES_OUT")) == 3
        assert await bus.read(address("ERRORS")) == 0

    in_top(body)


def test_a_disabled_ip_takes_no_frame() -> None:
    async def body(ctx: Any, top: Top, tick: Any) -> None:
        bus = Bus(ctx, top, tick, "s_axil_")
        await bus.write(address("CONTROL"), 0)
        assert await transfer(ctx, top, tick, random_frames(1), random.Random(3), limit=60) == []
        await bus.write(address("CONTROL"), 1)
        assert await bus.read(address("CONTROL")) == 1

    in_top(body)
