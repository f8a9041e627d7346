"""The integer epilogue against exact real arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.lowering.epilogue import make_epilogue
from qcompile.numerics import Requantize, Thresholds, requantize, round_half_up, threshold
from qcompile.ops import Activation, Rescale
from qcompile.types import (
    TERNARY,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    Range,
    TensorType,
)

OP = Rescale(name="op", inputs=("x",), outputs=("y",))


def at(values, channel):
    return values[channel if len(values) > 1 else 0]


def select(condition, a, b):
    return a if condition else b


def integer_result(epilogue, acc, channel):
    if isinstance(epilogue, Thresholds):
        limits = [at(limit, channel) for limit in epilogue.thresholds]
        return threshold(acc, limits, epilogue.low, epilogue.step, select)
    assert isinstance(epilogue, Requantize)
    acc = min(max(acc, at(epilogue.acc_low, channel)), at(epilogue.acc_high, channel))
    m, b = at(epilogue.multipliers, channel), at(epilogue.biases, channel)
    negative = epilogue.negative
    if negative is not None and acc < at(negative.pivots, channel):
        m, b = at(negative.multipliers, channel), at(negative.biases, channel)
    shift = at(epilogue.shifts, channel)
    low, high = at(epilogue.lows, channel), at(epilogue.highs, channel)
    return requantize(acc, m, b, shift, low, high, select)


def real_result(unit, bias, activation, channel, acc, scale, element):
    z = acc * unit + bias
    slope, gain, shift = (
        Fraction(at(values, channel))
        for values in (activation.slope, activation.gain, activation.shift)
    )
    y = gain * (slope * z if z < 0 else z) + shift
    if activation.low != -math.inf:
        y = max(y, Fraction(activation.low))
    if activation.high != math.inf:
        y = min(y, Fraction(activation.high))
    return min(max(y / scale, Fraction(element.low)), Fraction(element.high))


finite = st.floats(-4, 4, allow_nan=False).map(lambda v: round(v, 3))
positive = st.floats(1e-4, 2.0).map(lambda v: float(f"{v:.6g}"))
activations = st.builds(
    Activation,
    slope=st.sampled_from([(1.0,), (0.0,), (0.01,), (0.25, -0.5)]),
    gain=st.sampled_from([(1.0,), (0.7, 1.3), (-0.8,), (0.0, 2.0)]),
    shift=st.sampled_from([(0.0,), (0.3,), (-0.2, 0.9)]),
    low=st.sampled_from([-math.inf, 0.0, -1.0]),
    high=st.sampled_from([math.inf, 6.0, 1.5]),
)


@settings(max_examples=300, deadline=None)
@given(
    unit=st.lists(positive, min_size=2, max_size=2),
    bias=st.lists(finite, min_size=2, max_size=2),
    activation=activations,
    scale=positive,
    element=st.sampled_from(
        [IntType(2, False), IntType(4), IntType(6, False), IntType(8), IntType(16)]
    ),
    reach=st.integers(1, 1 << 20),
    flip=st.booleans(),
    data=st.data(),
)
def test_requantize_is_the_real_function_within_one_rounding(
    unit, bias, activation, scale, element, reach, flip, data
):
    sign = -1 if flip else 1
    units = [Fraction(u) * sign for u in unit]
    biases = [Fraction(b) for b in bias]
    output = TensorType((1, 2, 4), element, Quantization.per_tensor(scale))
    span = Range(-reach, reach)
    epilogue = make_epilogue(OP, units, biases, activation, output, span)
    assert isinstance(epilogue, Requantize)
    points = data.draw(st.lists(st.integers(-reach, reach), min_size=1, max_size=20))
    for acc in [*points, -reach, reach, 0]:
        for channel in range(2):
            exact = real_result(
                units[channel], biases[channel], activation, channel, acc, Fraction(scale), element
            )
            got = integer_result(epilogue, acc, channel)
            # Half a step of rounding, 1/16 of the multiplier, 2**-7 of the bias, and the clip
            # bounds are rounded to codes.
            assert abs(got - exact) <= Fraction(1, 2) + Fraction(1, 16) + Fraction(1, 64) + (
                Fraction(1, 2) if activation.low != -math.inf or activation.high != math.inf else 0
            )


@settings(max_examples=200, deadline=None)
@given(unit=positive, bias=finite, scale=positive, reach=st.integers(1, 4000))
def test_the_accumulator_clamp_changes_nothing(unit, bias, scale, reach):
    output = TensorType((1, 1, 4), IntType(5), Quantization.per_tensor(scale))
    activation = Activation(slope=(0.1,))
    epilogue = make_epilogue(
        OP, [Fraction(unit)], [Fraction(bias)], activation, output, Range(-reach, reach)
    )
    unclamped = Requantize(
        epilogue.multipliers,
        epilogue.biases,
        epilogue.shifts,
        epilogue.lows,
        epilogue.highs,
        (-reach,),
        (reach,),
        epilogue.negative,
    )
    step = max(1, reach // 500)
    for acc in [*range(-reach, reach + 1, step), reach]:
        assert integer_result(epilogue, acc, 0) == integer_result(unclamped, acc, 0)


@settings(max_examples=200, deadline=None)
@given(unit=positive, bias=finite, scale=positive, reach=st.integers(1, 4000))
def test_ternary_thresholds_are_strict_and_exact(unit, bias, scale, reach):
    kind = Codebook(CodebookKind.TERNARY, 3)
    output = TensorType((1, 1, 4), TERNARY, Quantization.per_tensor(scale), kind)
    epilogue = make_epilogue(
        OP, [Fraction(unit)], [Fraction(bias)], Activation(), output, Range(-reach, reach)
    )
    assert isinstance(epilogue, Thresholds)
    for acc in range(-reach, reach + 1, max(1, reach // 300)):
        v = (acc * Fraction(unit) + Fraction(bias)) / Fraction(scale)
        expected = 1 if v > Fraction(1, 2) else -1 if v < -Fraction(1, 2) else 0
        assert integer_result(epilogue, acc, 0) == expected


def test_exactly_half_a_step_is_zero_for_ternary():
    kind = Codebook(CodebookKind.TERNARY, 3)
    output = TensorType((1, 1, 4), TERNARY, Quantization.per_tensor(1.0), kind)
    epilogue = make_epilogue(
        OP, [Fraction(1, 2)], [Fraction(0)], Activation(), output, Range(-4, 4)
    )
    results = [integer_result(epilogue, acc, 0) for acc in range(-3, 4)]
    assert results == [-1, -1, 0, 0, 0, 1, 1]


def test_power_of_two_ratios_are_exact():
    output = TensorType((1, 1, 4), IntType(8), Quantization.per_tensor(2.0**-3))
    epilogue = make_epilogue(
        OP, [Fraction(1, 2**9)], [Fraction(5, 2**9)], Activation(), output, Range(-9000, 9000)
    )
    assert epilogue.multipliers[0].bit_count() == 1
    for acc in range(-9000, 9001, 7):
        exact = (Fraction(acc, 2**9) + Fraction(5, 2**9)) * 8
        assert integer_result(epilogue, acc, 0) == min(max(round_half_up(exact), -128), 127)


def test_ternary_codes_of_a_relu_are_not_negative():
    kind = Codebook(CodebookKind.TERNARY, 3)
    output = TensorType((1, 1, 4), TERNARY, Quantization.per_tensor(1.0), kind)
    epilogue = make_epilogue(
        OP, [Fraction(1, 2)], [Fraction(0)], Activation(slope=(0.0,)), output, Range(-4, 4)
    )
    assert [integer_result(epilogue, acc, 0) for acc in range(-4, 5)] == [0] * 6 + [1] * 3


def test_a_relu_of_a_falling_function():
    """A norm with negative gain: large sums give 0, small ones do not."""
    output = TensorType((1, 1, 4), IntType(4, signed=False), Quantization.per_tensor(1.0))
    epilogue = make_epilogue(
        OP, [Fraction(-1)], [Fraction(2)], Activation(slope=(0.0,)), output, Range(-4, 4)
    )
    assert [integer_result(epilogue, acc, 0) for acc in range(-4, 5)] == [6, 5, 4, 3, 2, 1, 0, 0, 0]
