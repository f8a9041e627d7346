"""Real numbers on the grid are what codes times the scale would be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qcompile.numerics import round_half_up
from qcompile.passes.fake_quantize import on_grid, quantized
from qcompile.types import CodeLimits, IntType, Quantization, TensorType

DATA = np.random.default_rng(0).normal(0, 3, (1, 4, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("element", [IntType(4), IntType(6, signed=False), IntType(2, narrow=True)])
@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_rounded_half_up_and_clipped(element: IntType, scale: float) -> None:
    found = quantized(DATA, scale, element)
    codes = [round_half_up(Fraction(float(value)) / Fraction(scale)) for value in DATA.flat]
    wanted = np.clip(codes, element.low, element.high).reshape(DATA.shape) * scale
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
    assert found.dtype == np.float32


def test_ties_go_up() -> None:
    halves = np.asarray([[-1.5, -0.5, 0.5, 1.5]], np.float32)
    assert quantized(halves, 1.0, IntType(4)).tolist() == [[-1, 0, 1, 2]]


def test_limits_of_channels() -> None:
    limits = CodeLimits((-2, 0, 1, -7), (5, 0, 3, -1))
    kind = TensorType(DATA.shape, IntType(4), Quantization.per_tensor(0.5), None, limits)
    codes = on_grid(DATA, kind) / 0.5
    for channel in range(4):
        ends = limits.at(channel)
        assert (codes[:, channel].min(), codes[:, channel].max()) == (ends.low, ends.high)
    np.testing.assert_array_equal(
        on_grid(DATA[:, :1], TensorType((1, 1, 5, 5), IntType(4), kind.quantization, None, None)),
        quantized(DATA[:, :1], 0.5, IntType(4)),
    )


def test_what_has_no_codes_is_untouched() -> None:
    assert on_grid(DATA, TensorType(DATA.shape)) is DATA
    classes = np.zeros((1, 5, 5), np.uint8)
    assert on_grid(classes, TensorType((1, 5, 5), IntType(8, signed=False))) is classes


@pytest.mark.parametrize("scale", [1e-300, 1e-44, 1e-39])
def test_zero_is_zero_however_small_the_steps(scale: float) -> None:
    with np.errstate(invalid="raise"):
        found = quantized(np.asarray([[0.0, 1.0, -1.0]], np.float32), scale, IntType(4))
    assert found[0, 0] == 0
    assert np.isfinite(found).all()
