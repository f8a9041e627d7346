"""`requantize` and its fast form: exhaustive at small widths, random at full width."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.errors import GraphError
from qcompile.numerics import NegativeBranch, Requantize, clamp, requantize, round_half_up
from qcompile.sim.epilogue import apply_epilogue
from qcompile.types import Array, IntType, Range
from tests.sim.reference import finish

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def select(condition: bool, if_true: int, if_false: int) -> int:
    return if_true if condition else if_false


def test_rounding_goes_up_at_ties() -> None:
    assert [round_half_up(Fraction(n, 2)) for n in range(-5, 6)] == [
        -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3,
    ]  # fmt: skip
    assert round_half_up(0.49999999999999994) == 0


@given(st.fractions())
def test_rounding_is_within_a_half(value: Fraction) -> None:
    assert Fraction(-1, 2) < round_half_up(value) - value <= Fraction(1, 2)


def test_clamp_exhaustively() -> None:
    for low in range(-4, 5):
        for high in range(low, 5):
            for value in range(-8, 9):
                assert clamp(value, low, high, select) == sorted((low, value, high))[1]


@pytest.mark.parametrize("shift", range(1, 6))
def test_requantize_is_the_rounded_real_number(shift: int) -> None:
    """Every sum of 9 bits, multiplier of 5 and real bias of quarter steps, ties included."""
    one = 1 << shift
    accs = np.arange(-256, 256)
    for multiplier in range(32):
        for quarter in range(-8, 9):
            bias = math.floor(Fraction(quarter, 4) * one) + one // 2
            fast = requantize(accs, multiplier, bias, shift, -8, 7, np.where)
            exact = [
                min(max(round_half_up(Fraction(a * multiplier + bias - one // 2, one)), -8), 7)
                for a in range(-256, 256)
            ]
            assert fast.tolist() == exact


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
def test_the_fast_epilogue_exhaustively(dtype: type) -> None:
    """Every sum of 10 bits in every dtype that sums arrive in, against plain integers."""
    accs = np.arange(-512, 512)
    rng = np.random.default_rng(7)
    for _ in range(60):
        channels = int(rng.integers(1, 4))
        epilogue = _random_epilogue(rng, channels)
        tile: Array = np.broadcast_to(accs, (1, channels, accs.size)).astype(dtype)
        fast = apply_epilogue(epilogue, tile, 1, np.dtype(np.int8))
        for c in range(channels):
            assert fast[0, c].tolist() == [finish(epilogue, a, c) for a in accs.tolist()]


def _random_epilogue(rng: np.random.Generator, channels: int) -> Requantize:
    def vector(low: int, high: int) -> tuple[int, ...]:
        count = channels if rng.random() < 0.6 else 1
        return tuple(int(v) for v in rng.integers(low, high + 1, count))

    magnitude = int(rng.choice((7, 300, 1 << 20, 1 << 28, 1 << 40)))
    negative = None
    if rng.random() < 0.5:
        negative = NegativeBranch(
            vector(-600, 600), vector(-magnitude, magnitude), vector(-magnitude, magnitude)
        )
    lows = vector(-128, 100)
    return Requantize(
        multipliers=vector(0, magnitude),
        biases=vector(-magnitude * 256, magnitude * 256),
        shifts=vector(1, 40),
        lows=lows,
        highs=vector(max(lows), 127),
        acc_low=vector(-600, -1),
        acc_high=vector(0, 600),
        negative=negative,
    )


@given(
    acc=st.lists(INT64, min_size=1, max_size=8),
    limits=st.tuples(st.integers(-(1 << 40), 0), st.integers(0, 1 << 40)),
    multiplier=st.integers(0, (1 << 22) - 1),
    bias=st.integers(-(1 << 61), 1 << 61),
    shift=st.integers(1, 62),
    pivot=INT64,
)
def test_the_fast_epilogue_at_full_width(
    acc: list[int],
    limits: tuple[int, int],
    multiplier: int,
    bias: int,
    shift: int,
    pivot: int,
) -> None:
    epilogue = Requantize(
        (multiplier,),
        (bias,),
        (shift,),
        (-128,),
        (127,),
        (limits[0],),
        (limits[1],),
        NegativeBranch((pivot,), (multiplier // 3,), (bias // 2,)),
    )
    tile = np.array(acc, dtype=np.int64).reshape(1, 1, -1)
    fast = apply_epilogue(epilogue, tile, 1, np.dtype(np.int8))
    assert fast.reshape(-1).tolist() == [finish(epilogue, a, 0) for a in acc]


def test_products_beyond_64_bits_are_refused_and_never_wrap() -> None:
    big = Requantize((1 << 40,), (0,), (30,), (-8,), (7,), (-(1 << 30),), (1 << 30,))
    with pytest.raises(GraphError, match="64 bits"):
        apply_epilogue(big, np.zeros((1, 1, 1), np.int64), 1, np.dtype(np.int8))


@given(
    multipliers=st.lists(st.integers(-1000, 1000), min_size=1, max_size=3),
    bias=st.integers(-5000, 5000),
    low=st.integers(-20, 0),
    high=st.integers(0, 20),
)
def test_the_product_range_holds_every_product(
    multipliers: list[int], bias: int, low: int, high: int
) -> None:
    negative = NegativeBranch((0,), tuple(m // 2 for m in multipliers), (bias + 1,))
    epilogue = Requantize(tuple(multipliers), (bias,), (1,), (-8,), (7,), (low,), (high,), negative)
    bound = epilogue.product_range()
    for multiplier in multipliers:
        for acc in range(low, high + 1):
            for m, b in ((multiplier, bias), (multiplier // 2, bias + 1)):
                for value in (acc * m, acc * m + b):
                    assert bound.contains(Range(value, value))


def test_a_rounding_constant_off_by_one_changes_a_result() -> None:
    """Every tie of this epilogue is exact, so the smallest change of the bias shows."""
    accs = np.arange(-8, 8).reshape(1, 1, -1)
    right = Requantize((1,), (1,), (1,), (-8,), (7,), (-8,), (7,))
    wrong = Requantize((1,), (0,), (1,), (-8,), (7,), (-8,), (7,))
    first = apply_epilogue(right, accs.astype(np.int32), 1, np.dtype(np.int8))
    second = apply_epilogue(wrong, accs.astype(np.int32), 1, np.dtype(np.int8))
    assert (first != second).sum() == 8
    assert IntType(4).range.contains(right.output_range())
