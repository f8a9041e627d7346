import numpy as np
import pytest

from qcompile.hw.broadcast import Broadcast
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate

STREAM = TensorStream(3, 4, 1, IntType(5))


@pytest.mark.parametrize(
    ("channels", "lanes"), [(1, 1), (4, 1), (4, 2), (4, 4), (6, 3), (3, 1), (2, 1)]
)
def test_every_channel_gets_the_value(channels: int, lanes: int) -> None:
    rng = np.random.default_rng(channels)
    block = Broadcast(STREAM, channels, lanes)
    frame = random_frame(STREAM, rng)
    maps = block.outputs[0].from_beats(block.compute(frame)[0])
    expected = np.broadcast_to(STREAM.from_beats(frame), (1, channels, 3, 4))
    np.testing.assert_array_equal(maps, expected)
    check_block(block, rng, cycles_tolerance=0)


def test_latency_is_exact() -> None:
    frame = random_frame(STREAM, np.random.default_rng(0))
    result = simulate(Broadcast(STREAM, 6, 2), frame)
    assert result.offered[0][0] - result.accepted[0][0] == 1
    assert result.sent[0] == list(range(1, 37))


def test_what_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        Broadcast(TensorStream(3, 4, 2, IntType(5)), 4, 2)
    with pytest.raises(ValueError, match="3 lanes"):
        Broadcast(STREAM, 4, 3)
    with pytest.raises(ValueError, match="0 channels"):
        Broadcast(STREAM, 0, 1)
