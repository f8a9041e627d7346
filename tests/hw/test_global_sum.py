"""Sums over all pixels."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.hw.global_sum import GlobalSum
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate


def _block(height: int, width: int, groups: int, lanes: int, element: IntType) -> GlobalSum:
    stream = TensorStream(height, width, groups * lanes, element, lanes)
    reach = element.range.scaled(stream.pixels)
    return GlobalSum(stream, IntType.holding(reach))


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("seed", range(2))
def test_random_tensors(seed: int, groups: int) -> None:
    rng = np.random.default_rng([seed, groups])
    height, width, lanes = (int(v) for v in rng.integers(1, 5, 3))
    element = IntType(int(rng.integers(1, 9)), bool(rng.random() < 0.5))
    block = _block(height, width, groups, lanes, element)
    assert block.in_memory == (groups >= 4)
    check_block(block, rng)


@pytest.mark.parametrize("groups", [1, 2, 4, 7])
def test_single_pixels(groups: int) -> None:
    check_block(_block(1, 1, groups, 2, IntType(5)), np.random.default_rng(groups))


@pytest.mark.parametrize("groups", [1, 3, 4, 9])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_never_waits_for_itself(groups: int, width: int) -> None:
    block = _block(1, width, groups, 1, IntType(6))
    frame = random_frame(block.input, np.random.default_rng(0))
    result = simulate(block, frame, frames=6)
    assert result.cycles == 6 * block.cycles + block.latency
    last_pixel = (width - 1) * groups
    assert result.offered[0][0] - result.accepted[0][last_pixel] == block.latency


def test_next_frame_is_added_up_while_results_wait() -> None:
    block = _block(2, 4, 4, 1, IntType(4))
    frame = random_frame(block.input, np.random.default_rng(0))
    result = simulate(block, frame, frames=2, ready=0.03, limit=2000)
    first_result_left = result.sent[0][0]
    assert result.accepted[0][len(frame) + 20] < first_result_left


def test_extremes() -> None:
    block = _block(4, 4, 4, 1, IntType(8))
    for value, total in ((-128, -2048), (127, 2032)):
        found = simulate(block, np.full((64, 1), value)).outputs[0][0]
        assert (found == total).all()


@pytest.mark.parametrize("groups", [1, 5])
def test_accumulators_hold_what_limited_codes_make(groups: int) -> None:
    """Codes of 0..3 in an element of 8 bits: the sums need 6 bits, not 12."""
    rng = np.random.default_rng(groups)
    block = GlobalSum(TensorStream(4, 4, groups, IntType(8)), IntType(6, signed=False))
    frames = [[rng.integers(0, 3, (16 * groups, 1), endpoint=True)], [np.full((16 * groups, 1), 3)]]
    check_block(block, rng, inputs=frames)
