"""Epilogues and movement under limits of the codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.errors import UnsupportedError
from qcompile.lowering.epilogue import make_epilogue
from qcompile.numerics import Requantize, Thresholds
from qcompile.ops import (
    Activation,
    Concat,
    MaxPool,
    Pad,
    PadMode,
    Rescale,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.ops.code_limits import moved_limits
from qcompile.types import (
    TERNARY,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    Range,
    TensorType,
)
from tests.sim.reference import finish

OP = Rescale(name="op", inputs=("x",), outputs=("y",))
I8 = IntType(8)
SCALE = Quantization.per_tensor(0.25)


def limited(
    low: Sequence[int], high: Sequence[int], element: IntType = I8, channels: int = 0
) -> TensorType:
    limits = CodeLimits(tuple(low), tuple(high))
    return TensorType((1, channels or len(low), 4, 4), element, SCALE, limits=limits)


codes = st.integers(-128, 127)
pairs = st.tuples(codes, codes).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    limits=st.lists(pairs, min_size=3, max_size=3),
    units=st.lists(st.floats(1e-3, 2).map(lambda v: float(f"{v:.4g}")), min_size=3, max_size=3),
    biases=st.lists(st.floats(-20, 20).map(lambda v: round(v, 2)), min_size=3, max_size=3),
    slope=st.sampled_from([0.0, 0.1, 1.0]),
    high=st.sampled_from([float("inf"), 6.0]),
    reach=st.integers(1, 3000),
)
def test_channels_saturate_at_their_own_limits(
    limits: list[list[int]],
    units: list[float],
    biases: list[float],
    slope: float,
    high: float,
    reach: int,
) -> None:
    lows, highs = zip(*limits, strict=True)
    activation = Activation(slope=(slope,), high=high)
    exact = [Fraction(unit) for unit in units]
    shifts = [Fraction(bias) for bias in biases]
    span = Range(-reach, reach)

    def made(kind: TensorType) -> Requantize:
        epilogue = make_epilogue(OP, exact, shifts, activation, kind, span)
        assert isinstance(epilogue, Requantize)
        return epilogue

    narrow = made(limited(lows, highs))
    unclamped = dataclasses.replace(narrow, acc_low=(-reach,), acc_high=(reach,))
    for channel in range(3):
        low, top = lows[channel], highs[channel]
        for acc in range(-reach, reach + 1, max(1, reach // 60)):
            code = finish(narrow, acc, channel)
            assert low <= code <= top
            assert code == finish(unclamped, acc, channel)
            z = acc * exact[channel] + shifts[channel]
            real = min(z * Fraction(slope) if z < 0 else z, Fraction(min(high, 1e6))) * 4
            wanted = min(max(real, Fraction(low)), Fraction(top))
            assert abs(code - wanted) <= Fraction(1, 2) + Fraction(1, 16) + Fraction(1, 64)


def test_a_norm_behind_a_relu_starts_at_its_shift() -> None:
    """gain * relu(x) + shift: the 8 codes of 3 bits begin elsewhere in each channel."""
    starts = (-5, 3, 0)
    kind = limited(starts, [start + 7 for start in starts], IntType(5))
    activation = Activation(slope=(0.0,), shift=tuple(start / 4 for start in starts))
    epilogue = make_epilogue(OP, [Fraction(1, 4)], [Fraction(0)], activation, kind, Range(-50, 50))
    assert isinstance(epilogue, Requantize)
    assert epilogue.lows == starts
    assert epilogue.negative is None
    for channel, start in enumerate(starts):
        found = [finish(epilogue, acc, channel) for acc in range(-50, 51)]
        assert found == [start + min(max(acc, 0), 7) for acc in range(-50, 51)]


@pytest.mark.parametrize("unit", [Fraction(1, 4), Fraction(-1, 4)])
@pytest.mark.parametrize("gain", [1.0, -1.0])
@pytest.mark.parametrize(("low", "high"), [(-9, 9), (3, 9), (-9, 3), (2, 9), (4, 9), (-9, 2)])
def test_a_bend_goes_where_the_clamp_makes_it(
    unit: Fraction, gain: float, low: int, high: int
) -> None:
    """gain * relu(z) + 3 steps, z being one step a sum: only limits that begin or end at 3 or
    cut more off make the bend."""
    kind = limited((low,), (high,))
    activation = Activation(slope=(0.0,), gain=(gain,), shift=(0.75,))
    epilogue = make_epilogue(OP, [unit], [Fraction(0)], activation, kind, Range(-20, 20))
    assert isinstance(epilogue, Requantize)
    assert (epilogue.negative is None) == (low >= 3 if gain > 0 else high <= 3)
    for acc in range(-20, 21):
        z = acc if unit > 0 else -acc
        wanted = min(max(3 + int(gain) * max(z, 0), low), high)
        assert finish(epilogue, acc, 0) == wanted


def test_limits_that_are_alike_stay_one_entry() -> None:
    kind = limited((-37,) * 3, (90,) * 3)
    biases = [Fraction(c) for c in range(3)]
    epilogue = make_epilogue(OP, [Fraction(1)], biases, Activation(), kind, Range(-500, 500))
    assert isinstance(epilogue, Requantize)
    assert (epilogue.lows, epilogue.highs) == ((-37,), (90,))


@pytest.mark.parametrize("limits", [((-1, 0, -1), (1, 1, 0)), ((0,), (0,)), ((1, -1), (1, -1))])
def test_ternary_codes_keep_their_limits(
    limits: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    book = Codebook(CodebookKind.TERNARY, 3)
    kind = dataclasses.replace(limited(*limits, TERNARY), codebook=book)
    epilogue = make_epilogue(OP, [Fraction(1, 4)], [Fraction(0)], Activation(), kind, Range(-4, 4))
    assert isinstance(epilogue, Thresholds)
    for channel, ends in enumerate(zip(*limits, strict=True)):
        found = [finish(epilogue, acc, channel) for acc in range(-4, 5)]
        assert found == [min(max(sign, ends[0]), ends[1]) for sign in [-1] * 4 + [0] + [1] * 4]


def test_binary_outputs_need_both_codes() -> None:
    book = Codebook(CodebookKind.BINARY, 2)
    kind = dataclasses.replace(limited((-1, 0), (1, 1), TERNARY), codebook=book)
    with pytest.raises(UnsupportedError, match=r"'op'.*limits of 0\.\.1"):
        make_epilogue(OP, [Fraction(1)], [Fraction(0)], Activation(), kind, Range(-4, 4))
    kind = dataclasses.replace(kind, limits=CodeLimits((-1,), (1,)))
    epilogue = make_epilogue(OP, [Fraction(1)], [Fraction(0)], Activation(), kind, Range(-4, 4))
    assert [finish(epilogue, acc, 0) for acc in (-1, 0, 1)] == [-1, 1, 1]


A = limited((-4, 1, 2), (5, 6, 7))
B = limited((-9,), (3,), channels=2)
ONE = {"name": "m", "inputs": ("a",), "outputs": ("y",)}
NO_PADS = {"begins": (0,) * 4, "ends": (0, 0, 1, 1)}
KERNEL = {"kernel": (2, 2), "strides": (2, 2), "dilations": (1, 1)}


def test_movement_carries_limits() -> None:
    pool = MaxPool(**ONE, **KERNEL, pads_begin=(1, 1), pads_end=(0, 0))
    assert moved_limits(pool, [A]) == A.limits
    back = Slice(**ONE, starts=(0, 2, 1, 0), sizes=(1, 2, 3, 4), steps=(1, -2, 1, 1))
    assert moved_limits(back, [A]) == CodeLimits((2, -4), (7, 5))
    assert moved_limits(Transpose(**ONE, permutation=(0, 1, 3, 2)), [A]) == A.limits
    assert moved_limits(Transpose(**ONE, permutation=(0, 2, 1, 3)), [A]) == CodeLimits((-4,), (7,))
    assert moved_limits(Reshape(**ONE, shape=(1, 48)), [A]) == CodeLimits((-4,), (7,))
    plain = dataclasses.replace(B, limits=None, element=IntType(3))
    assert moved_limits(pool, [plain]) is None
    joined = Concat(name="m", inputs=("a", "b"), outputs=("y",), axis=1)
    assert moved_limits(joined, [A, B]) == CodeLimits((-4, 1, 2, -9, -9), (5, 6, 7, 3, 3))
    assert moved_limits(joined, [plain, A]) == CodeLimits((-4, -4, -4, 1, 2), (3, 3, 5, 6, 7))
    below = dataclasses.replace(joined, axis=2)
    twin = limited((0, 0, 0), (9, 0, 0))
    assert moved_limits(below, [A, twin]) == CodeLimits((-4, 0, 0), (9, 6, 7))


def test_pads_bring_in_their_constant() -> None:
    assert moved_limits(Pad(**ONE, **NO_PADS), [A]) == CodeLimits((-4, 0, 0), (5, 6, 7))
    assert moved_limits(Pad(**ONE, **NO_PADS, value=2.0), [A]) == CodeLimits((-4, 1, 2), (8, 8, 8))
    assert moved_limits(Pad(**ONE, **NO_PADS, mode=PadMode.EDGE), [A]) == A.limits
    across = Pad(**ONE, begins=(0, 1, 0, 0), ends=(0,) * 4, mode=PadMode.EDGE)
    assert moved_limits(across, [A]) == CodeLimits((-4,), (7,))
