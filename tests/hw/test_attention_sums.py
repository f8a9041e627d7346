"""Weighted sums of values over windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.attention_sums import AttentionSums
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate

WEIGHT = IntType(15, False)


def block(positions: int, words: int, lanes: int, shared: bool, value: IntType) -> AttentionSums:
    """Two pixels of `words` beats of values a position."""
    values = WindowStream((0,), (0, 0), words, positions, value, lanes)
    count = 1 if shared else lanes
    weights = TensorStream(1, 2, words * positions * count, WEIGHT, count)
    return AttentionSums(weights, values, 1, 2, IntType(15 + value.bits + 4 + 1))


BLOCKS = {
    "shared": block(9, 2, 3, True, IntType(8)),
    "apart": block(4, 1, 3, False, IntType(5, False)),
    "one position": block(1, 5, 2, True, IntType(4)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_random_sums(name: str) -> None:
    unit = BLOCKS[name]
    rng = np.random.default_rng(len(name))
    resets = name == next(iter(BLOCKS))
    check_block(unit, rng, stalls=((0.5, 0.6),), cycles_tolerance=0, reset=resets)
    found = simulate(unit, *[random_frame(stream, rng) for stream in unit.inputs])
    last = max(port[unit.values.fold_beats - 1] for port in found.accepted)
    assert found.offered[0][0] - last == unit.latency
    assert unit.multipliers == unit.values.lanes


def test_weights_that_are_repeated() -> None:
    """They come out of a window then."""
    unit = BLOCKS["shared"]
    repeated = WindowStream((0,), (0, 0), 2, 9, WEIGHT)
    check_block(replace(unit, weights=repeated), np.random.default_rng(0), stalls=((0.6, 0.5),))


def test_wrong_parameters() -> None:
    unit = BLOCKS["shared"]
    with pytest.raises(ValueError, match="36 beats of weights, 8 of values"):
        replace(unit, values=BLOCKS["apart"].values)
    with pytest.raises(ValueError, match="2 weights for 3 values"):
        replace(unit, weights=TensorStream(1, 2, 36, WEIGHT, 2))
    with pytest.raises(ValueError, match="do not make 3 x 2"):
        replace(unit, height=3)
