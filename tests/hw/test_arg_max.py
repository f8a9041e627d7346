"""Index of the largest channel."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile import ops
from qcompile.hw.arg_max import ArgMax
from qcompile.hw.streams import TensorStream
from qcompile.sim import arg_max as sim_arg_max
from qcompile.types import IntType, TensorType
from tests.hw.drive import check_block, random_frame, simulate


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 5, 7])
def test_random_pixels(lanes: int, last: bool) -> None:
    rng = np.random.default_rng(lanes)
    groups = int(rng.integers(1, 5))
    # Narrow elements, so that ties are common.
    element = IntType(int(rng.integers(1, 5)), bool(rng.random() < 0.5))
    stream = TensorStream(2, int(rng.integers(1, 5)), lanes * groups, element, lanes)
    block = ArgMax(stream, IntType(5, False), last)
    frame = random_frame(stream, rng)
    tensor = stream.from_beats(frame)
    op = ops.ArgMax(name="a", inputs=("x",), outputs=("y",), axis=1, last=last)
    kind = TensorType((1, 1, stream.height, stream.width), IntType(5, False))
    wanted = sim_arg_max.run(op, [tensor], kind)
    np.testing.assert_array_equal(block.output.from_beats(block.compute(frame)[0]), wanted)
    check_block(block, rng, inputs=[[frame], [random_frame(stream, rng)], [frame]])


@pytest.mark.parametrize("last", [False, True])
def test_all_equal(last: bool) -> None:
    stream = TensorStream(1, 3, 6, IntType(4), 3)
    block = ArgMax(stream, IntType(3, False), last)
    frame = np.repeat([[-8], [0], [7]], 6, axis=0).reshape(-1, 3)
    assert (simulate(block, frame).outputs[0][0] == (5 if last else 0)).all()


@pytest.mark.parametrize("groups", [1, 2, 3, 8])
def test_never_waits_for_itself(groups: int) -> None:
    stream = TensorStream(3, 4, 2 * groups, IntType(4), 2)
    block = ArgMax(stream, IntType(4, False))
    result = simulate(block, random_frame(stream, np.random.default_rng(0)))
    assert result.cycles == block.cycles + block.latency
    assert result.offered[0][0] - result.accepted[0][groups - 1] == block.latency


def test_element_is_checked() -> None:
    with pytest.raises(ValueError, match=r"u2 does not hold 0\.\.4"):
        ArgMax(TensorStream(1, 1, 5, IntType(4)), IntType(2, False))
