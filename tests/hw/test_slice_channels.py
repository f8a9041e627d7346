from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from qcompile.hw.slice_channels import SliceChannels
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate


def stream(lanes: int) -> TensorStream:
    return TensorStream(2, 3, 12, IntType(4), lanes)


@pytest.mark.parametrize(
    ("lanes", "kept", "lanes_left"),
    [
        (1, range(0, 12), 1),
        (1, range(3, 7), 1),
        (1, range(1, 12, 3), 1),
        (1, range(11, 12), 1),
        (1, range(0, 1), 1),
        (1, range(0, 12, 2), 1),
        (3, range(3, 9), 3),
        (3, range(0, 3), 3),
        (3, range(7, 9), 2),
        (4, range(1, 12, 2), 2),
        (4, range(2, 12, 4), 1),
        (2, range(3, 12, 4), 1),
        (12, range(2, 9), 7),
        (12, range(10, -1, -3), 4),
        (6, range(5, -1, -2), 3),
    ],
)
def test_a_range_of_channels(lanes: int, kept: range, lanes_left: int) -> None:
    rng = np.random.default_rng(len(kept))
    block = SliceChannels(stream(lanes), kept.start, kept.stop, kept.step)
    (output,) = block.outputs
    assert output.lanes == lanes_left
    frame = random_frame(block.stream, rng)
    maps = output.from_beats(block.compute(frame)[0])
    np.testing.assert_array_equal(maps, block.stream.from_beats(frame)[:, list(kept)])
    check_block(block, rng, cycles_tolerance=0)


def test_latency_is_exact() -> None:
    block = SliceChannels(stream(3), 3, 9)
    result = simulate(block, random_frame(block.stream, np.random.default_rng(0)))
    assert result.offered[0][0] - result.accepted[0][1] == 1
    assert result.accepted[0] == list(range(24))


def test_what_is_dropped_does_not_wait_for_the_output() -> None:
    component = SliceChannels(stream(1), 1, 12, 3).create()
    accepted = []

    async def bench(ctx: Any) -> None:
        ctx.set(component.i0.valid, 1)
        for _ in range(8):
            accepted.append(ctx.get(component.i0.ready))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert accepted == [1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("lanes", "kept"),
    [
        (3, range(1, 9)),
        (3, range(2, 7)),
        (4, range(0, 12, 3)),
        (1, range(5, 1, -1)),
        (3, range(11, -1, -3)),
        (3, range(11, -1, -1)),
    ],
)
def test_lanes_that_do_not_fit(lanes: int, kept: range) -> None:
    with pytest.raises(ValueError, match="does not keep the same"):
        SliceChannels(stream(lanes), kept.start, kept.stop, kept.step)


@pytest.mark.parametrize("kept", [range(4, 4), range(0, 13), range(-1, 3)])
def test_ranges_outside(kept: range) -> None:
    with pytest.raises(ValueError, match="of 12 channels"):
        SliceChannels(stream(1), kept.start, kept.stop, kept.step)
