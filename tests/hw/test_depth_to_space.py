from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from qcompile import ops
from qcompile.hw.depth_to_space import DepthToSpace
from qcompile.hw.streams import TensorStream
from qcompile.sim import depth_to_space
from qcompile.types import IntType, TensorType
from tests.hw.drive import check_block, random_frame, simulate


def make(
    height: int, width: int, channels: int, side: int, major: bool, lanes: int, bits: int = 4
) -> DepthToSpace:
    stream = TensorStream(height, width, channels * side**2, IntType(bits), lanes)
    return DepthToSpace(stream, side, major)


@pytest.mark.parametrize(
    ("height", "width", "channels", "side", "major", "lanes", "lanes_left"),
    [
        (3, 3, 2, 2, False, 1, 1),
        (2, 3, 4, 2, False, 2, 2),
        (2, 2, 4, 2, False, 4, 4),
        (2, 2, 2, 3, False, 2, 2),
        (3, 1, 1, 2, False, 1, 1),
        (2, 3, 1, 2, False, 4, 1),
        (3, 2, 2, 2, True, 1, 1),
        (2, 3, 1, 2, True, 1, 1),
        (2, 3, 4, 2, True, 4, 1),
        (2, 3, 4, 2, True, 8, 2),
        (2, 2, 2, 3, True, 18, 2),
        (2, 3, 4, 1, True, 2, 2),
        (2, 1, 1, 1, False, 1, 1),
    ],
)
def test_both_modes(
    height: int, width: int, channels: int, side: int, major: bool, lanes: int, lanes_left: int
) -> None:
    rng = np.random.default_rng(height * width * lanes)
    block = make(height, width, channels, side, major, lanes)
    (output,) = block.outputs
    assert output.lanes == lanes_left
    frame = random_frame(block.stream, rng)
    tensor = block.stream.from_beats(frame)
    op = ops.DepthToSpace(name="d", inputs=("x",), outputs=("y",), block=side, column_major=major)
    shape = op.infer_shape([tensor.shape])
    expected = depth_to_space.run(op, [tensor], TensorType(shape, IntType(4)))
    np.testing.assert_array_equal(output.from_beats(block.compute(frame)[0]), expected)
    check_block(block, rng, cycles_tolerance=0)


def test_both_sides_go_on_at_once() -> None:
    """While one row leaves the next arrives: no cycle is lost on either side."""
    block = make(6, 4, 2, 2, False, 1)
    result = simulate(block, random_frame(block.stream, np.random.default_rng(0)))
    assert result.accepted[0] == list(range(block.stream.beats))
    first = result.sent[0][0]
    assert result.sent[0] == list(range(first, first + block.outputs[0].beats))
    assert first - result.accepted[0][block.row_words - 1] == block.latency


def test_long_stalls() -> None:
    rng = np.random.default_rng(1)
    for block in (make(5, 3, 2, 2, False, 2), make(5, 3, 2, 2, True, 8)):
        frame = random_frame(block.stream, rng)
        for valid, ready in ((1.0, 0.15), (0.15, 1.0), (0.95, 0.9)):
            result = simulate(block, frame, frames=2, valid=valid, ready=ready, seed=5)
            for output in result.outputs[0]:
                np.testing.assert_array_equal(output, block.compute(frame)[0])


def test_a_row_that_completes_while_the_last_beat_of_another_waits() -> None:
    """The first word of the row is fetched behind a beat that does not move."""
    block = make(2, 1, 1, 2, True, 4)
    component = block.create()
    payload_in, payload_out = Value.cast(component.i0.payload), Value.cast(component.o0.payload)
    found = []

    async def bench(ctx: Any) -> None:
        async def send(item: int) -> None:
            ctx.set(payload_in, item)
            ctx.set(component.i0.valid, 1)
            await ctx.tick()
            ctx.set(component.i0.valid, 0)
            await ctx.tick().repeat(6)

        async def receive(count: int) -> None:
            ctx.set(component.o0.ready, 1)
            for _ in range(count):
                assert ctx.get(component.o0.valid)
                found.append(ctx.get(payload_out))
                await ctx.tick()
            ctx.set(component.o0.ready, 0)

        await send(0x4321)
        await receive(3)
        await send(0x8765)
        await receive(5)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("channels", "side", "major", "lanes"), [(4, 2, True, 2), (4, 2, False, 8), (2, 3, True, 6)]
)
def test_lanes_that_do_not_fit(channels: int, side: int, major: bool, lanes: int) -> None:
    with pytest.raises(ValueError, match=f"{lanes} lanes"):
        make(2, 2, channels, side, major, lanes)


def test_block_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="block size 2 for 6"):
        DepthToSpace(TensorStream(2, 2, 6, IntType(4)), 2)
