"""Threshold epilogues: exhaustive at small widths, random at full width."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.errors import GraphError
from qcompile.numerics import Thresholds, threshold
from qcompile.sim.epilogue import apply_epilogue
from qcompile.types import Array
from tests.sim.reference import finish

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def test_the_count_of_reached_thresholds() -> None:
    """All ascending pairs of limits in -4..4 and all sums in -6..6."""
    accs = np.arange(-6, 7)
    for limits in itertools.combinations_with_replacement(range(-4, 5), 2):
        for low, step in ((-1, 1), (0, 1), (-1, 2), (3, -1)):
            expected = [low + step * sum(a >= limit for limit in limits) for a in range(-6, 7)]
            assert threshold(accs, limits, low, step, np.where).tolist() == expected


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_the_fast_form_exhaustively(dtype: type) -> None:
    rng = np.random.default_rng(3)
    accs = np.arange(-300, 300)
    for count in (1, 2, 7, 15):
        limits = np.sort(rng.integers(-350, 350, (count, 3)), axis=0)
        for rows in (limits, limits[:, :1]):
            epilogue = Thresholds(tuple(tuple(row) for row in rows.tolist()), -4)
            tile: Array = np.broadcast_to(accs, (1, 3, accs.size)).astype(dtype)
            fast = apply_epilogue(epilogue, tile, 1, np.dtype(np.int8))
            for c in range(3):
                assert fast[0, c].tolist() == [finish(epilogue, a, c) for a in accs.tolist()]


@given(
    acc=st.lists(INT64, min_size=1, max_size=6),
    limits=st.lists(INT64, min_size=1, max_size=4),
)
def test_the_fast_form_at_full_width(acc: list[int], limits: list[int]) -> None:
    epilogue = Thresholds(tuple((limit,) for limit in sorted(limits)), -2)
    tile = np.array(acc, dtype=np.int64).reshape(1, 1, -1)
    fast = apply_epilogue(epilogue, tile, 1, np.dtype(np.int8))
    assert fast.reshape(-1).tolist() == [finish(epilogue, a, 0) for a in acc]


def test_limits_that_float_sums_cannot_hold_are_compared_exactly() -> None:
    epilogue = Thresholds((((1 << 24) + 1,),), 0)
    tile = np.array([1 << 24], np.float32).reshape(1, 1, 1)
    assert apply_epilogue(epilogue, tile, 1, np.dtype(np.uint8)).item() == 0


def test_limits_beyond_64_bits_are_refused() -> None:
    with pytest.raises(GraphError, match="64 bits"):
        apply_epilogue(
            Thresholds(((1 << 70,),), 0), np.zeros((1, 1, 1), np.int64), 1, np.dtype(np.int8)
        )
