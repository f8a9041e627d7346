import numpy as np
import pytest

from qcompile.hw.fork import Fork
from qcompile.hw.streams import Stream, TensorStream, WindowStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate

TENSOR = TensorStream(2, 3, 4, IntType(5), 2)
WINDOW = WindowStream((0, 1), (0, 0, 1), 2, 3, IntType(4, signed=False), 2)


@pytest.mark.parametrize("stream", [TENSOR, WINDOW], ids=["tensor", "window"])
@pytest.mark.parametrize("branches", [2, 3, 5])
def test_every_branch_gets_every_beat(stream: Stream, branches: int) -> None:
    rng = np.random.default_rng(branches)
    check_block(Fork(stream, branches), rng, cycles_tolerance=0)


def test_branches_go_at_their_own_pace() -> None:
    rng = np.random.default_rng(7)
    block = Fork(TensorStream(8, 8, 4, IntType(6)), 3)
    frames = random_frame(block.stream, rng)
    for ready in ((0.9, 0.1, 0.5), (1.0, 0.3, 1.0), (0.2, 0.2, 0.2)):
        result = simulate(block, frames, seed=11, valid=0.8, ready=ready)
        for port in result.outputs:
            np.testing.assert_array_equal(port[0], frames)


def test_a_branch_that_waits_does_not_hold_back_the_current_beat() -> None:
    block = Fork(TENSOR, 2)
    frame = random_frame(TENSOR, np.random.default_rng(1))
    result = simulate(block, frame, ready=(1.0, 0.25))
    fast, slow = result.sent
    assert fast[0] == 0
    for beat in range(1, len(frame)):
        assert fast[beat] == slow[beat - 1] + 1


def test_one_branch_is_no_fork() -> None:
    with pytest.raises(ValueError, match="1 branches"):
        Fork(TENSOR, 1)
