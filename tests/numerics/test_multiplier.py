"""`multiplier_and_shift`: within its error budget, and no wider than it must be."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from qcompile.numerics import (
    MINIMUM_SHIFT,
    MULTIPLIER_ERROR,
    multiplier_and_shift,
    round_half_up,
)


def error(ratio: Fraction, multiplier: int, shift: int, reach: int) -> Fraction:
    return abs(Fraction(multiplier, 1 << shift) - ratio) * reach


def power_of_two(ratio: Fraction) -> bool:
    return ratio.numerator.bit_count() == ratio.denominator.bit_count() == 1


def test_small_ratios_exhaustively() -> None:
    """The budget is kept, and the next smaller shift would break it."""
    for numerator in range(1, 24):
        for denominator in range(1, 24):
            ratio = Fraction(numerator, denominator)
            for reach in (1, 2, 3, 10, 100, 4095):
                multiplier, shift = multiplier_and_shift(ratio, reach)
                assert shift >= MINIMUM_SHIFT
                assert error(ratio, multiplier, shift, reach) <= MULTIPLIER_ERROR
                if shift > MINIMUM_SHIFT and not power_of_two(ratio):
                    narrower = round_half_up(ratio * (1 << (shift - 1)))
                    assert error(ratio, narrower, shift - 1, reach) > MULTIPLIER_ERROR


@given(
    ratio=st.floats(2.0**-60, 2.0**20, exclude_min=True),
    reach=st.integers(1, 1 << 62),
)
def test_the_budget_at_full_width(ratio: float, reach: int) -> None:
    exact = Fraction(ratio)
    multiplier, shift = multiplier_and_shift(exact, reach)
    assert shift >= MINIMUM_SHIFT
    assert multiplier >= 0
    assert error(exact, multiplier, shift, reach) <= MULTIPLIER_ERROR


@given(exponent=st.integers(-60, 20), reach=st.integers(1, 1 << 40))
def test_powers_of_two_are_exact(exponent: int, reach: int) -> None:
    ratio = Fraction(2) ** exponent
    multiplier, shift = multiplier_and_shift(ratio, reach)
    assert Fraction(multiplier, 1 << shift) == ratio
    assert multiplier & (multiplier - 1) == 0


def test_a_ratio_of_zero() -> None:
    assert multiplier_and_shift(Fraction(0), 100) == (0, MINIMUM_SHIFT)
