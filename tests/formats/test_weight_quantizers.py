"""Every named quantizer of weights against its publication's formula, written anew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcompile.errors import UsageError
from qcompile.fixed_point import QFormat
from qcompile.passes.weight_quantizers import QuantizedRows, quantize_rows
from qcompile.plan import Format, Quantizer, parse_format
from qcompile.types import Array, CodebookKind, IntType


def rows(seed: int = 0, spread: float = 0.6) -> Array:
    values = np.random.default_rng(seed).normal(0, spread, (6, 90)).astype(np.float32)
    return values.astype(np.float64)


def of(width: str, quantizer: Quantizer) -> Format:
    return parse_format(width, quantizer, "--wbits", weights=True)


def assert_holds(found: QuantizedRows) -> None:
    """Codes lie in their type, and there are no more of them than the code book says."""
    assert found.codes.min() >= found.element.low
    assert found.codes.max() <= found.element.high
    assert np.unique(found.codes).size <= found.codebook.levels
    assert 2 ** found.codebook.storage_bits(found.element) >= found.codebook.levels


# Fixed point ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "x", "wanted"),
    [
        ("Q0.4", 1.2, 0.1875),  # the integer part is dropped
        ("Q0.4", -1.5, -0.5),
        ("Q0.4", 1.0, 0.0),
        ("Q0.4", 0.99, 1.0),  # the fraction rounds up to 1
        ("Q0.4", 1 / 32, 0.0),  # ties go to even
        ("Q0.4", 3 / 32, 2 / 16),
        ("Q4.4", 3.126, 3.125),
        ("Q4.4", 3.98, 4.0),
        ("Q6.0", 0.99, 0.0),  # towards zero
        ("Q6.0", 1.99, 1.0),
        ("Q6.0", -1.99, -1.0),
        ("Q6.0", 1e6, 63.0),
    ],
)
def test_fxp_paper_as_published(q: str, x: float, wanted: float) -> None:
    found = quantize_rows(np.array([[x]]), of(q, Quantizer.FXP_PAPER))
    assert found.reals() == [[wanted]]


@pytest.mark.parametrize(
    ("q", "levels", "bits"),
    [
        ("Q0.4", 33, 6),
        ("Q0.2", 9, 4),
        ("Q0.8", 513, 10),
        ("Q6.0", 127, 7),
        ("Q4.0", 31, 5),
        ("Q8.0", 511, 9),
        ("Q8.8", 131073, 18),
    ],
)
def test_true_levels_of_fxp_paper(q: str, levels: int, bits: int) -> None:
    """Nominal 4 bits have 33 levels and take 6 bits; nothing calls them 4."""
    chosen = of(q, Quantizer.FXP_PAPER)
    step = 2.0**-chosen.q.fraction / 8 if chosen.q else 0.0
    end = 2.0**chosen.q.integer + 2 if chosen.q else 0.0
    sweep = np.arange(-end, end, max(step, end / 500_000))[None]
    found = quantize_rows(sweep, chosen)
    assert found.codebook.levels == levels
    assert np.unique(found.codes).size == levels
    assert found.codebook.storage_bits(found.element) == bits == chosen.bits
    assert chosen.codebook(chosen.element(signed=True)).levels == levels


def test_fixed_saturates_and_is_narrow_in_weights() -> None:
    chosen = of("Q0.4", Quantizer.FIXED)
    found = quantize_rows(np.array([[5.0, -5.0, 0.03126, -0.0312, 1 / 32]]), chosen)
    assert found.reals().tolist() == [[15 / 16, -15 / 16, 1 / 16, 0.0, 1 / 16]]
    assert found.codebook.levels == 31
    assert (chosen.element(signed=True), chosen.element(signed=False)) == (
        IntType(5),
        IntType(4, signed=False),
    )
    assert parse_format("Q0.4", Quantizer.SCALED, "--wq") == chosen


def test_a_filter_of_next_to_nothing_is_nothing() -> None:
    """Its step would need a multiplier of more bits than there are."""
    values = rows()
    values[1] *= 2.0**-60
    values[2] = 0.0
    found = quantize_rows(values, Format(4, Quantizer.FIXED))
    assert not found.codes[1:3].any()
    assert found.codes[0].any()
    assert found.scales.max() / found.scales.min() <= 2.0**28
    alone = quantize_rows(values[1:3], Format(4, Quantizer.FIXED))
    assert alone.codes[0].any()


def test_fxp_em_is_the_nearest_power_by_logarithm() -> None:
    chosen = of("Q0.4", Quantizer.FXP_EM)
    values = rows()
    values[0, :4] = [0.0, 0.7071, 0.7072, -1.4]  # around 2**-1/2; beyond the clip of 15/16
    wanted = np.zeros_like(values)
    for place, x in np.ndenumerate(values):
        if x:
            power = 2.0 ** round(math.log2(abs(x)))
            wanted[place] = math.copysign(min(power, 15 / 16), x)
    found = quantize_rows(values, chosen)
    np.testing.assert_array_equal(found.reals(), wanted)
    assert wanted[0, 1:4].tolist() == [0.5, 15 / 16, -15 / 16]
    assert_holds(found)


def test_fxp_em_weights_too_far_apart_are_refused() -> None:
    with pytest.raises(UsageError, match=r"span 5\d powers of two, more than 40"):
        quantize_rows(np.array([[1.0, 2.0**-50]]), of("Q1.4", Quantizer.FXP_EM))


def test_activations_of_fxp_em_end_at_a_lowest_power() -> None:
    q = QFormat(6, 0)
    reals = np.array([2.0**-8, 2.0**-8.4, 2.0**-8.6, -40.0, 0.0, 3.0])
    wanted = np.array([2.0**-8, 2.0**-8, 0.0, -32.0, 0.0, 4.0])
    np.testing.assert_array_equal(q.em_codes(reals) * 2.0**-q.em_fraction, wanted)
    chosen = parse_format("Q6.0", Quantizer.FXP_EM, "--aq")
    assert chosen.codebook(chosen.element(signed=True)).levels == 29
    assert chosen.codebook(chosen.element(signed=False)).levels == 15


# Power of two, ternary, binary, DoReFa --------------------------------------------------------


@pytest.mark.parametrize(("bits", "levels", "exponents"), [(5, 17, 8), (7, 65, 32)])
def test_pow2_is_the_code_book_of_inq(bits: int, levels: int, exponents: int) -> None:
    values = rows()
    s = np.abs(values).max()
    n1 = math.floor(math.log2(4 * s / 3))
    n2 = n1 + 1 - 2 ** (bits - 1) // 2
    wanted = np.zeros_like(values)
    for n in range(n2, n1 + 1):
        lower = 2.0**n / 2 if n == n2 else (2.0 ** (n - 1) + 2.0**n) / 2
        inside = (np.abs(values) >= lower) & (np.abs(values) < 3 * 2.0**n / 2)
        wanted[inside] = 2.0**n
    found = quantize_rows(values, of(str(bits), Quantizer.POW2))
    np.testing.assert_array_equal(found.reals(), wanted * np.sign(values))
    assert (found.codebook.levels, n1 - n2 + 1) == (levels, exponents)
    assert found.codebook.storage_bits(found.element) == bits
    assert_holds(found)


def test_more_bits_of_pow2_add_smaller_powers_only() -> None:
    values = rows()
    five, seven = (quantize_rows(values, of(bits, Quantizer.POW2)).reals() for bits in "57")
    large = np.abs(values) > np.abs(values).max() / 128
    np.testing.assert_array_equal(five[large], seven[large])
    assert (five[~large] != seven[~large]).any()


def test_twn_thresholds_at_0_7_of_the_mean() -> None:
    values = rows()
    values[2] = 0.0  # nothing to divide by
    found = quantize_rows(values, of("ternary", Quantizer.TWN))
    for row, real in zip(values, found.reals(), strict=True):
        delta = 0.7 * np.abs(row).mean()
        kept = np.abs(row) > delta
        alpha = np.abs(row[kept]).mean() if kept.any() else 0.0
        wanted = alpha * (row > delta) - alpha * (row < -delta)
        np.testing.assert_allclose(real, wanted, rtol=1e-14)
    assert (found.codebook.levels, found.codebook.name) == (3, "twn")


def test_a_weight_on_the_threshold_of_twn_is_dropped() -> None:
    """Strict inequality: |w| = Delta exactly becomes 0."""
    found = quantize_rows(np.array([[0.7, -1.3, 0.0, 2.0]]), of("ternary", Quantizer.TWN))
    assert found.codes.tolist() == [[0, -1, 0, 1]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dorefa_is_uniform_after_tanh(bits: int) -> None:
    values = rows()
    n = 2**bits - 1
    squashed = np.tanh(values)
    unit = squashed / (2 * np.abs(squashed).max()) + 0.5
    wanted = 2 * (np.round(n * unit) / n) - 1
    found = quantize_rows(values, of(str(bits), Quantizer.DOREFA))
    np.testing.assert_allclose(found.reals(), wanted, rtol=0, atol=1e-15)
    assert found.codebook.levels == 2**bits
    assert found.codebook.storage_bits(found.element) == bits
    assert (found.codes % 2 != 0).all()  # no 0 among them
    assert_holds(found)


def test_dorefa_activations_lie_in_0_to_1() -> None:
    chosen = parse_format("4", Quantizer.DOREFA, "--abits")
    assert chosen.element(signed=True) == IntType(4, signed=False)
    assert chosen.given_scale == 1 / 15


def test_binary_is_the_sign_and_the_mean() -> None:
    found = quantize_rows(np.array([[0.5, -1.5, 0.0, 2.0]]), of("binary", Quantizer.BINARY))
    assert found.codes.tolist() == [[1, -1, 1, 1]]
    assert found.scales.tolist() == [1.0]
    assert found.codebook.kind is CodebookKind.BINARY
    assert found.codebook.storage_bits(found.element) == 1


@pytest.mark.parametrize(
    ("width", "quantizer", "fragment"),
    [
        ("8", Quantizer.POW2, "pow2 has 2 to 7 bits, not 8"),
        ("16", Quantizer.DOREFA, "dorefa has weights of 2 to 8 bits, not 16"),
    ],
)
def test_widths_that_do_not_exist(width: str, quantizer: Quantizer, fragment: str) -> None:
    with pytest.raises(UsageError, match=fragment):
        quantize_rows(rows(), of(width, quantizer))
