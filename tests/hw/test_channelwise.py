from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile.hw.channelwise import TABLE_WORDS, ChannelWeights, Channelwise, TapWeights
from qcompile.hw.streams import WindowStream
from qcompile.types import TERNARY, Array, IntType, Range
from tests.hw.drive import check_block, random_frame, simulate

U6 = IntType(6, signed=False)
Phases = tuple[int, ...]


def holding(weights: Array, activation: IntType) -> IntType:
    """Accumulator of the sums of weights [phases, channels, taps]."""
    bounds = activation.range.union(Range(0, 0))
    high, low = weights.clip(min=0).sum(2).max(), weights.clip(max=0).sum(2).min()
    return IntType.holding(bounds.scaled(int(high)) + bounds.scaled(int(low)))


def unit(
    weights: ChannelWeights | TapWeights,
    activation: IntType = U6,
    *,
    lanes: int = 2,
    folds: int = 2,
    rows: Phases = (0, 0),
    columns: Phases = (0, 0, 0),
) -> Channelwise:
    window = WindowStream(rows, columns, folds, weights.shape[1], activation, lanes)
    accumulator = holding(weights.table, activation)
    return Channelwise(window, len(rows), len(columns), weights, accumulator)


def by_channel(
    rng: np.random.Generator, element: IntType, phases: int, channels: int, taps: int
) -> ChannelWeights:
    shape = (phases, channels, taps)
    codes = rng.integers(element.low, element.high, shape, endpoint=True)
    return ChannelWeights(codes, element)


def direct(block: Channelwise, frame: Array) -> Array:
    """The definition, with Python integers."""
    window, weights = block.window, block.weights
    columns = max(window.column_phases) + 1
    beats = iter(frame.tolist())
    result = []
    for row in window.row_phases:
        for column in window.column_phases:
            for fold in range(window.folds):
                sums = [0] * window.lanes
                for tap in range(window.fold_beats):
                    for lane, value in enumerate(next(beats)):
                        if isinstance(weights, TapWeights):
                            ky, kx = divmod(tap, len(weights.columns[0]))
                            weight = weights.rows[row][ky] * weights.columns[column][kx]
                        else:
                            channel = fold * window.lanes + lane
                            weight = int(weights.codes[row * columns + column, channel, tap])
                        sums[lane] += weight * value
                result.append(sums)
    return np.array(result)


def check(block: Channelwise, rng: np.random.Generator) -> None:
    frame = random_frame(block.window, rng)
    np.testing.assert_array_equal(block.compute(frame)[0], direct(block, frame))
    check_block(block, rng)


@pytest.mark.parametrize("seed", range(8))
def test_depthwise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lanes, folds, taps = (int(rng.integers(1, high)) for high in (4, 4, 10))
    element = TERNARY if seed % 4 == 0 else IntType(int(rng.integers(2, 9)))
    activation = IntType(int(rng.integers(1, 9)), signed=bool(rng.integers(2)))
    rows, columns = [((0, 0), (0, 0)), ((0, 1), (0, 1, 2, 1)), ((0,), (0, 1))][seed % 3]
    phases = (max(rows) + 1) * (max(columns) + 1)
    weights = by_channel(rng, element, phases, lanes * folds, taps)
    block = unit(weights, activation, lanes=lanes, folds=folds, rows=rows, columns=columns)
    assert block.multipliers == (0 if element == TERNARY else lanes)
    check(block, rng)


def test_affine() -> None:
    """One tap: a factor for each channel, one fold a cycle."""
    rng = np.random.default_rng(1)
    block = unit(by_channel(rng, IntType(8), 1, 6, 1), folds=3)
    check(block, rng)
    frame = random_frame(block.window, rng)
    accepted = simulate(block, frame, frames=3).accepted[0]
    assert accepted == list(range(accepted[0], accepted[0] + 3 * block.cycles))


@pytest.mark.parametrize(
    ("rows", "columns", "multipliers"),
    [
        (((1, 1),), ((1, 1, 1),), 0),
        (((3, 1), (1, 3)), ((3, 1), (1, 3)), 2),
        (((9, 6, 4),), ((1,), (2,), (5,)), 2),
        (((1, -1),), ((1, 0),), 0),
        (((-3, 2),), ((1, 5),), 2),
    ],
)
def test_weights_of_taps(
    rows: tuple[Phases, ...], columns: tuple[Phases, ...], multipliers: int
) -> None:
    rng = np.random.default_rng(2)
    weights = TapWeights(rows, columns)
    block = unit(
        weights,
        rows=tuple(range(len(rows))),
        columns=tuple(range(len(columns))),
    )
    assert block.multipliers == multipliers
    check(block, rng)


@pytest.mark.parametrize("taps", [(2, 2), (1, 2), (2, 1), (3, 2)])
def test_many_phases_are_factors(taps: tuple[int, int]) -> None:
    """Resizing by odd ratios has a set of weights for almost every position."""
    rng = np.random.default_rng(sum(taps))
    axes = []
    for count, seen in zip(taps, (2, 3), strict=True):
        values = rng.integers(0, 40, (40, count))
        values[0] = 39
        axes.append((tuple(tuple(int(v) for v in phase) for phase in values), seen))
    rows, columns = axes[0][0], axes[1][0]
    weights = TapWeights(rows, columns)
    assert weights.shape[0] * weights.shape[1] > TABLE_WORDS
    block = unit(weights, lanes=2, rows=(0, 39, 7), columns=(0, 39, 3, 12))
    assert block.multipliers == 3
    check(block, rng)


def test_wide_weights_take_several_multipliers() -> None:
    weights = TapWeights(((1 << 11, 1 << 11),), ((1 << 11, (1 << 11) - 1),))
    assert unit(weights, IntType(8)).multipliers == 4


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    good = unit(by_channel(rng, IntType(4), 1, 4, 9))
    with pytest.raises(ValueError, match="pixels"):
        dataclasses.replace(good, width=4)
    with pytest.raises(ValueError, match="taps do not fit"):
        dataclasses.replace(good, weights=by_channel(rng, IntType(4), 1, 4, 8))
    with pytest.raises(ValueError, match="channels"):
        dataclasses.replace(good, weights=by_channel(rng, IntType(4), 1, 5, 9))
    with pytest.raises(ValueError, match="of i2"):
        ChannelWeights(np.full((1, 1, 1), 7), IntType(2))
    with pytest.raises(ValueError, match="same number of taps"):
        TapWeights(((1, 2), (3,)), ((1,),))
    with pytest.raises(ValueError, match="1 x 2 phases"):
        dataclasses.replace(
            unit(TapWeights(((1,),), ((1,),)), rows=(0,), columns=(0,)),
            weights=TapWeights(((1,), (2,)), ((1,),)),
            window=WindowStream((0,), (0, 1), 2, 1, U6, 2),
            width=2,
        )
