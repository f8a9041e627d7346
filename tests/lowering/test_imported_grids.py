"""Epilogues, tables and boundaries of grids that came with a model."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qcompile.errors import GraphError, UnsupportedError
from qcompile.lowering.epilogue import make_epilogue
from qcompile.lowering.few_levels import MOST_LEVELS, ImportedLevels, few_levels_epilogue
from qcompile.lowering.tables import boundary_offset, rounded_codes
from qcompile.numerics import (
    Epilogue,
    Requantize,
    Thresholds,
    imported_error,
    requantize,
    threshold,
)
from qcompile.ops import IDENTITY, RELU, Activation, Conv, Op
from qcompile.types import (
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    Range,
    Rounding,
    TensorType,
)

OP: Op = Conv(
    name="conv", inputs=("x", "w"), outputs=("y",), strides=(1, 1), pads_begin=(0, 0),
    pads_end=(0, 0), dilations=(1, 1),
)  # fmt: skip
REACH = Range(-3000, 3000)
SLOPES = [Fraction(1, 64), Fraction(1, 37), Fraction(0.0123), Fraction(3, 128), Fraction(-1, 96)]


def grid(low: int, high: int, mode: Rounding, scale: float = 1.0) -> TensorType:
    element = IntType.holding(Range(low, high))
    limits = CodeLimits((low,), (high,))
    book = Codebook(CodebookKind.UNIFORM, high - low + 1)
    return TensorType((1, 1, 1, 1), element, Quantization((scale,), imported=mode), book, limits)


def code(epilogue: Epilogue, acc: int) -> int:
    """What an epilogue of one channel makes of a sum."""

    def select(condition: bool, a: int, b: int) -> int:
        return a if condition else b

    if isinstance(epilogue, Thresholds):
        limits = [row[0] for row in epilogue.thresholds]
        return int(threshold(acc, limits, epilogue.low, epilogue.step, select))
    acc = min(max(acc, epilogue.acc_low[0]), epilogue.acc_high[0])
    multiplier, bias = epilogue.multipliers[0], epilogue.biases[0]
    if epilogue.negative is not None and acc < epilogue.negative.pivots[0]:
        multiplier, bias = epilogue.negative.multipliers[0], epilogue.negative.biases[0]
    low, high = epilogue.lows[0], epilogue.highs[0]
    return int(requantize(acc, multiplier, bias, epilogue.shifts[0], low, high, select))


def exact(kind: TensorType, value: Fraction) -> int:
    assert kind.quantization is not None
    assert kind.quantization.imported is not None
    steps = value / kind.quantization.exact()
    levels = ImportedLevels(kind.quantization.imported, kind.codes)
    return levels.level(steps.numerator, steps.denominator)


@pytest.mark.parametrize("mode", Rounding)
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-37, 218)])
def test_many_levels_round_as_the_model_says_but_near_ties(
    mode: Rounding, low: int, high: int
) -> None:
    kind = grid(low, high, mode)
    error = imported_error(kind.codes)
    for slope in SLOPES:
        bias = Fraction(0.3721)
        epilogue = make_epilogue(OP, (slope,), (bias,), IDENTITY, kind, REACH)
        assert isinstance(epilogue, Requantize)
        ties = 0
        for acc in range(REACH.low, REACH.high + 1, 24):
            value = slope * acc + bias
            if code(epilogue, acc) != exact(kind, value):
                nearest = min(abs(value * 2 - round(value * 2)), Fraction(1)) / 2
                assert nearest <= 2 * error
                ties += 1
        assert ties <= 3


@pytest.mark.parametrize("mode", Rounding)
@pytest.mark.parametrize("activation", [IDENTITY, RELU, Activation(slope=(0.25,))])
def test_few_levels_are_exact_for_every_sum(mode: Rounding, activation: Activation) -> None:
    for low, high in ((0, 15), (-8, 7), (-5, 10)):
        kind = grid(low, high, mode)
        for slope in (Fraction(1, 64), Fraction(0.0123)):
            for bias in (Fraction(0), Fraction(1, 2), Fraction(0.3721)):
                real = (OP, (slope,), (bias,), activation, kind, REACH)
                epilogue = few_levels_epilogue(*real)
                assert epilogue is not None
                for acc in range(REACH.low, REACH.high + 1, 8):
                    value = slope * acc + bias
                    if value < 0:
                        value *= Fraction(activation.slope[0])
                    assert code(epilogue, acc) == exact(kind, value), (acc, slope, bias)


def test_ties_to_even_take_thresholds_only_where_there_are_ties() -> None:
    kind = grid(0, 15, Rounding.HALF_EVEN)
    at_ties = few_levels_epilogue(OP, (Fraction(1, 64),), (Fraction(0),), IDENTITY, kind, REACH)
    between = few_levels_epilogue(OP, (Fraction(0.0123),), (Fraction(0),), IDENTITY, kind, REACH)
    assert isinstance(at_ties, Thresholds)
    assert isinstance(between, Requantize)


def test_our_own_grids_and_wide_ones_keep_their_epilogue() -> None:
    wide = grid(0, MOST_LEVELS, Rounding.FLOOR)
    own = TensorType((1, 1, 1, 1), IntType(4), Quantization((1.0,)))
    for kind in (wide, own):
        real = (OP, (Fraction(1, 64),), (Fraction(0),), IDENTITY, kind, REACH)
        assert few_levels_epilogue(*real) is None


def test_multipliers_of_imported_grids_keep_24_bits() -> None:
    kind = grid(-128, 127, Rounding.HALF_EVEN)
    slope = Fraction(0.012345678)
    epilogue = make_epilogue(OP, (slope,), (Fraction(0),), IDENTITY, kind, REACH)
    assert isinstance(epilogue, Requantize)
    off = abs(Fraction(epilogue.multipliers[0], 1 << epilogue.shifts[0]) - slope)
    assert off * REACH.high <= imported_error(kind.codes) == Fraction(128, 1 << 24)


def test_a_sign_dependent_mode_behind_a_bend_elsewhere_is_refused() -> None:
    kind = grid(-128, 127, Rounding.UP)
    bent = Activation(slope=(0.25,), shift=(-3.0,))
    with pytest.raises(UnsupportedError, match="depends on the sign"):
        make_epilogue(OP, (Fraction(1, 64),), (Fraction(0),), bent, kind, REACH)


@pytest.mark.parametrize("mode", Rounding)
def test_tables(mode: Rounding) -> None:
    kind = grid(-8, 7, mode, 0.25)
    reals = np.array([-1.9, -0.4, -0.1, 0.0, 0.1, 0.3, 1.7])
    codes = rounded_codes(reals, Fraction(1, 4), kind)
    assert codes.tolist() == [exact(kind, Fraction(float(real))) for real in reals]


def test_tables_of_two_levels() -> None:
    kind = grid(-1, 1, Rounding.HALF_EVEN)
    binary = TensorType(
        kind.shape, kind.element, kind.quantization, Codebook(CodebookKind.BINARY, 2), kind.limits
    )
    reals = np.array([-0.3, 0.0, 0.2, 5.0])
    assert rounded_codes(reals, Fraction(1), binary).tolist() == [-1, 1, 1, 1]


def test_boundaries() -> None:
    assert boundary_offset("x", grid(-8, 7, Rounding.HALF_EVEN)) == 0.5
    assert 0 < boundary_offset("x", grid(0, 15, Rounding.DOWN)) < 1e-5
    with pytest.raises(GraphError, match="'x': rounding mode DOWN of signed values"):
        boundary_offset("x", grid(-8, 7, Rounding.DOWN))
