"""Epilogues of the published fixed-point formats, at every sum, against the papers' formulas.

The oracle below is written from the formulas alone, in exact rationals.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.errors import UnsupportedError
from qcompile.lowering.published import published_epilogue
from qcompile.numerics import Requantize, Thresholds, requantize, threshold
from qcompile.ops import Activation, Rescale
from qcompile.plan import Quantizer, parse_format
from qcompile.types import Quantization, Range, TensorType

OP = Rescale(name="op", inputs=("x",), outputs=("y",))


def paper(x: Fraction, i: int, f: int) -> Fraction:
    """sign(x) * (quantize(floor|x|, i) + quantize(frac|x|, f)), quantize(v, n) being
    round(clamp(v, 0, 2**n - 1) * 2**n) / 2**n."""

    def quantize(value: Fraction, n: int) -> Fraction:
        clamped = min(max(value, Fraction(0)), Fraction(2**n - 1))
        return Fraction(round(clamped * 2**n), 2**n)  # round() takes ties to even

    magnitude = abs(x)
    whole = Fraction(math.floor(magnitude))
    result = quantize(whole, i) + quantize(magnitude - whole, f)
    return result if x > 0 else -result


def em(x: Fraction, i: int, f: int, lowest: int = -8) -> Fraction:
    """sign(x) * 2**round(log2|x|), clamped, and 0 below the lowest power."""
    if x == 0:
        return Fraction(0)
    magnitude, exponent = abs(x), -64
    while Fraction(2) ** (2 * exponent + 1) < magnitude * magnitude:  # |x| > 2**(exponent + 1/2)
        exponent += 1
    clip = (Fraction(2) ** (i - 1) if i else Fraction(0)) + sum(
        (Fraction(1, 2**k) for k in range(1, f + 1)), Fraction(0)
    )
    result = min(Fraction(2) ** exponent, clip) if exponent >= lowest else Fraction(0)
    return result if x > 0 else -result


TABLE_END = Fraction(4095, 4)
"""In steps: the middle of the last half step that the table of a wrapping format has. Numbers
beyond count as this one (docs/formats.md)."""

ORACLES = {Quantizer.FXP_PAPER: paper, Quantizer.FXP_EM: em}


def output_of(text: str, quantizer: Quantizer, signed: bool) -> TensorType:
    chosen = parse_format(text, quantizer, "--aq")
    element = chosen.element(signed)
    assert chosen.given_scale is not None
    scale = Quantization.per_tensor(chosen.given_scale)
    return TensorType((1, 2, 4, 4), element, scale, chosen.codebook(element))


def at(values, channel):
    return values[channel if len(values) > 1 else 0]


def select(condition, a, b):
    return a if condition else b


def integer_result(found, acc, channel, clamped):
    """With the sum clamped (as C does it) or not (hardware): that must not matter."""
    epilogue = found.epilogue
    if isinstance(epilogue, Thresholds):
        limits = [at(limit, channel) for limit in epilogue.thresholds]
        code = threshold(acc, limits, epilogue.low, epilogue.step, select)
    else:
        assert isinstance(epilogue, Requantize)
        if clamped:
            acc = min(max(acc, at(epilogue.acc_low, channel)), at(epilogue.acc_high, channel))
        m, b = at(epilogue.multipliers, channel), at(epilogue.biases, channel)
        negative = epilogue.negative
        if negative is not None and acc < at(negative.pivots, channel):
            m, b = at(negative.multipliers, channel), at(negative.biases, channel)
        low, high = at(epilogue.lows, channel), at(epilogue.highs, channel)
        code = requantize(acc, m, b, at(epilogue.shifts, channel), low, high, select)
    if found.table is None:
        return code
    table = found.table if found.table.ndim == 1 else found.table[channel]
    return int(table[code - found.index.low])


def real_value(acc, unit, bias, activation, channel):
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
    return y


def compare(text, quantizer, units, biases, activation, reach):
    output = output_of(text, quantizer, signed=True)
    found = published_epilogue(OP, units, biases, activation, output, reach)
    digits = text[1:].split(".")
    scale = output.quantization.exact()
    for channel in range(2):
        for acc in range(reach.low, reach.high + 1):
            real = real_value(acc, at(units, channel), at(biases, channel), activation, channel)
            if found.table is not None and quantizer is Quantizer.FXP_PAPER:
                real = min(max(real, -TABLE_END * scale), TABLE_END * scale)
            wanted = ORACLES[quantizer](real, int(digits[0]), int(digits[1]))
            for clamped in (False, True):
                got = integer_result(found, acc, channel, clamped) * scale
                assert got == wanted, (acc, channel, float(real))
    return found


WIDE = Range(-50, 50)
any_unit = st.floats(1e-3, 2.0).map(lambda v: Fraction(np.float32(v).item()))
dyadic_unit = st.integers(1, 64).map(lambda v: Fraction(v, 64))
biases = st.floats(-3, 3).map(lambda v: Fraction(round(v, 3)))
LEAKY = Activation(slope=(0.1, 0.02))
activations = st.just(LEAKY) | st.builds(
    Activation,
    slope=st.sampled_from([(1.0,), (0.0,), (0.0, 1.0)]),
    gain=st.sampled_from([(1.0,), (0.7, 1.3), (-0.8, 1.1), (0.0, 2.0)]),
    shift=st.sampled_from([(0.0,), (0.3,), (-2.2, 0.9)]),
    high=st.sampled_from([math.inf, 6.0]),
)


@settings(max_examples=30, deadline=None)
@given(
    units=st.lists(any_unit | dyadic_unit, min_size=2, max_size=2),
    bias=st.lists(biases | st.just(Fraction(0)), min_size=2, max_size=2),
    activation=activations,
    text=st.sampled_from(["Q6.0", "Q4.0", "Q2.0"]),
)
def test_whole_activations_at_every_sum(units, bias, activation, text) -> None:
    """Truncation towards zero, on both sides, with norms of either sign behind the ReLU."""
    reach = Range(-150, 250)
    compare(text, Quantizer.FXP_PAPER, units, bias, activation, reach)


@settings(max_examples=12, deadline=None)
@given(
    units=st.lists(any_unit.filter(lambda u: u.denominator > 4096), min_size=2, max_size=2),
    bias=st.lists(biases, min_size=2, max_size=2),
    activation=activations,
    text=st.sampled_from(["Q0.4", "Q0.2", "Q3.3", "Q4.4"]),
)
def test_fractions_wrap_as_published(units, bias, activation, text) -> None:
    """Sums far beyond 2**i, where the fraction goes on."""
    reach = Range(-120, 150)
    compare(text, Quantizer.FXP_PAPER, units, bias, activation, reach)


@settings(max_examples=12, deadline=None)
@given(
    units=st.lists(any_unit | dyadic_unit, min_size=2, max_size=2),
    bias=st.lists(biases, min_size=2, max_size=2),
    activation=activations,
    text=st.sampled_from(["Q6.0", "Q0.4", "Q3.2"]),
)
def test_powers_of_two_at_every_sum(units, bias, activation, text) -> None:
    reach = Range(-120, 150)
    found = compare(text, Quantizer.FXP_EM, units, bias, activation, reach)
    assert found.table is not None


def test_a_dead_zone_needs_two_lines() -> None:
    found = compare(
        "Q6.0",
        Quantizer.FXP_PAPER,
        (Fraction(1, 16),),
        (Fraction(0),),
        Activation(),
        Range(-99, 99),
    )
    assert isinstance(found.epilogue, Requantize)
    assert found.epilogue.negative is not None
    assert found.table is None


def test_wrapping_takes_a_table_and_bounded_sums_do_not() -> None:
    units, zero = (Fraction(3, 256),), (Fraction(1, 1000),)
    near = compare("Q0.4", Quantizer.FXP_PAPER, units, zero, Activation(), Range(-80, 80))
    assert near.table is None
    far = compare("Q0.4", Quantizer.FXP_PAPER, units, zero, Activation(), Range(-90, 90))
    assert far.table is not None


def test_many_ties_to_even_are_refused() -> None:
    """No multiplier rounds ties to even; few levels could be thresholds, many cannot."""
    output = output_of("Q0.4", Quantizer.FXP_PAPER, signed=True)
    tie, zero = (Fraction(1, 32),), (Fraction(0),)
    with pytest.raises(UnsupportedError) as caught:
        published_epilogue(OP, tie, zero, Activation(), output, Range(-500, 500))
    assert "ties" in caught.value.items[0].reason
    compare("Q0.4", Quantizer.FXP_PAPER, tie, zero, Activation(), Range(-50, 50))


def test_channels_of_either_direction_count_steps() -> None:
    either = Activation(gain=(1.0, -1.0))
    units, zero = (Fraction(1, 4),), (Fraction(0),)
    found = compare("Q6.0", Quantizer.FXP_EM, units, zero, either, WIDE)
    assert found.table.ndim == 2
    assert isinstance(found.epilogue, Thresholds)


def test_what_bends_twice_is_refused() -> None:
    output = output_of("Q6.0", Quantizer.FXP_PAPER, signed=True)
    falls_and_rises = Activation(slope=(-0.5,))
    with pytest.raises(UnsupportedError) as caught:
        published_epilogue(OP, (Fraction(1),), (Fraction(0),), falls_and_rises, output, WIDE)
    assert "falls on the other" in caught.value.items[0].reason
