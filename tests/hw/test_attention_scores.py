"""Scores of attention over windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.attention_scores import AttentionScores
from qcompile.hw.streams import WindowStream
from qcompile.types import Array, IntType, Range
from tests.hw.drive import check_block, random_frame, simulate

QUERY, KEY = IntType(5), IntType(4, False)


def block(
    embeddings: Array, folds: int, lanes: int, *, key_bits: int = 2, separate: bool = False
) -> AttentionScores:
    """Two pixels; `embeddings` is [beats of a pixel, lanes], `folds` the scores of a pixel."""
    beats = len(embeddings)
    queries = WindowStream((0,), (0, 0), folds, beats // folds, QUERY, lanes)
    keys = WindowStream((0,), (0, 0), 1, beats, KEY, lanes)
    plain = AttentionScores(queries, keys, 1, 2, embeddings, key_bits, IntType(1), separate)
    channels = beats // folds * (1 if separate else lanes)
    reach = (QUERY.range * plain.key).union(Range(0, 0)).scaled(channels)
    return replace(plain, accumulator=IntType.holding(reach))


def embeddings(beats: int, lanes: int, bound: int = 9) -> Array:
    return np.random.default_rng(beats).integers(-bound, bound + 1, (beats, lanes))


BLOCKS = {
    "heads of one beat": block(embeddings(6, 3), 6, 3),
    "heads of two beats": block(embeddings(12, 2), 6, 2),
    "one head a lane": block(embeddings(6, 3), 6, 3, separate=True),
    "no embeddings": block(np.zeros((6, 2), np.int64), 3, 2, key_bits=0),
    "many positions": block(embeddings(75, 2, 400), 25, 2),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_random_scores(name: str) -> None:
    unit = BLOCKS[name]
    rng = np.random.default_rng(len(name))
    resets = name == next(iter(BLOCKS))
    check_block(unit, rng, stalls=((0.5, 0.6),), cycles_tolerance=0, reset=resets)
    frames = [random_frame(stream, rng) for stream in unit.inputs]
    found = simulate(unit, *frames)
    last = max(port[unit.queries.fold_beats - 1] for port in found.accepted)
    assert found.offered[0][0] - last == unit.latency


def test_compute_by_hand() -> None:
    unit = block(np.array([[1, -1], [3, 0]]), 2, 2)
    queries = np.array([[2, 1], [2, 1], [0, 5], [0, 5]])
    keys = np.array([[3, 1], [0, 2], [1, 1], [1, 0]])
    scores = [2 * (12 + 1) + (4 - 1), 2 * 3 + 8, 5 * (4 - 1), 0]
    assert unit.compute(queries, keys)[0][:, 0].tolist() == scores
    apart = block(np.array([[1, -1], [3, 0]]), 2, 2, separate=True)
    assert apart.compute(queries, keys)[0].tolist() == [[26, 3], [6, 8], [0, 15], [0, 0]]


def test_multipliers_are_those_of_keys_with_embeddings() -> None:
    """Keys of 4 bits, 2 bits of fraction, a sign."""
    assert BLOCKS["heads of one beat"].multipliers == 3
    assert block(embeddings(6, 3, 1 << 20), 6, 3).multipliers == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 3}, "do not make 3 x 2"),
        ({"embeddings": np.zeros((5, 3), np.int64)}, r"embeddings of shape \[5, 3\] for 6 beats"),
        ({"keys": WindowStream((0,), (0, 0), 1, 4, KEY, 3)}, "differ in their beats"),
    ],
)
def test_wrong_parameters(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BLOCKS["heads of one beat"], **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="have one channel"):
        replace(BLOCKS["heads of two beats"], separate=True)
