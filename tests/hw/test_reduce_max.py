"""Maximum over windows."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.hw.reduce_max import ReduceMax
from qcompile.hw.streams import WindowStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate


def _window(
    height: int, width: int, folds: int, beats: int, element: IntType, lanes: int
) -> WindowStream:
    return WindowStream((0,) * height, (0,) * width, folds, beats, element, lanes)


@pytest.mark.parametrize("seed", range(10))
def test_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, folds, lanes = (int(v) for v in rng.integers(1, 4, 4))
    beats = (1, 2, 3, 4, 9)[seed % 5]
    element = IntType(int(rng.integers(1, 9)), bool(rng.random() < 0.5))
    block = ReduceMax(_window(height, width, folds, beats, element, lanes), height, width)
    check_block(block, rng)


def test_is_the_maximum_of_the_fold() -> None:
    block = ReduceMax(_window(1, 1, 2, 2, IntType(4), 2), 1, 1)
    frame = np.array([[-8, 3], [-7, -1], [7, -8], [0, -8]])
    assert block.compute(frame)[0].tolist() == [[-7, 3], [7, -8]]


@pytest.mark.parametrize("beats", [1, 2, 3, 4, 5, 9])
def test_never_waits_for_itself(beats: int) -> None:
    block = ReduceMax(_window(3, 4, 2, beats, IntType(4), 1), 3, 4)
    frame = random_frame(block.input, np.random.default_rng(0))
    result = simulate(block, frame)
    assert result.cycles == block.cycles + block.latency
    assert result.offered[0][0] - result.accepted[0][beats - 1] == block.latency


def test_takes_what_is_not_a_last_beat_while_the_queue_is_full() -> None:
    block = ReduceMax(_window(1, 2, 1, 9, IntType(4), 1), 1, 2)
    assert block.queue_depth == 1
    check_block(block, np.random.default_rng(0), stalls=((1.0, 0.05),), reset=False)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match="6 windows do not make 2 x 2 pixels"):
        ReduceMax(_window(2, 3, 1, 4, IntType(4), 1), 2, 2)
