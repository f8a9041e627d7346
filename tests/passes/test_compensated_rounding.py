"""Rounding that keeps sums: better than nearest codes, on the grid, finite in every corner."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile.passes.compensated_rounding import (
    Grid,
    Moments,
    Rounded,
    best_scales,
    kept_bias,
    round_weights,
)
from qcompile.types import Array

GRIDS = [
    Grid(1),
    Grid(7),
    Grid(127, rounds=1, sweeps=0),
    Grid(7, power_of_two=True),
    Grid(7, power_of_two=True, scale=0.25),
    Grid(7, rounds=0, sweeps=0, solves=False),
]


def problem(
    seed: int, groups: int = 1, filters: int = 6, columns: int = 27, positions: int = 400
) -> tuple[Array, Moments]:
    """Weights, and moments of correlated inputs and of the outputs that they made elsewhere."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(groups, filters, columns))
    mixing = rng.normal(size=(groups, columns, columns)) * rng.uniform(0.1, 2, columns)
    clean = np.maximum(np.matmul(rng.normal(size=(groups, positions, columns)), mixing), 0) + 0.3
    x = clean + 0.05 * rng.normal(size=clean.shape)
    y = np.matmul(clean, weights.transpose(0, 2, 1))
    return weights, Moments.measured(x.astype(np.float32), y.astype(np.float32))


def output_error(weights: Array, real: Array, moments: Moments) -> float:
    """(w - w*) H (w - w*)', summed over the filters, but for what no weights can change."""
    hessian = moments.hessian.astype(np.float64)
    rest = moments.cross - np.matmul(weights, hessian)
    change = real - weights
    gain = 2 * (change * rest).sum()
    return float((np.matmul(change, hessian) * change).sum() - gain)


def reals(found: Rounded) -> Array:
    return np.asarray(found.codes * found.scales[..., None])


def nearest(weights: Array, moments: Moments, grid: Grid) -> Array:
    importance = np.diagonal(moments.hessian, axis1=1, axis2=2)
    steps = best_scales(weights, importance, grid)[..., None]
    return np.asarray(np.clip(np.rint(weights / steps), -grid.limit, grid.limit) * steps)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_outputs_change_less_than_by_nearest_codes(grid: Grid, seed: int) -> None:
    weights, moments = problem(seed)
    found = round_weights(weights, moments, grid)
    plain = nearest(weights, moments, grid)
    own = output_error(weights, reals(found), moments)
    assert own < output_error(weights, plain, moments)
    assert np.abs(found.codes).max() <= grid.limit
    assert found.codes.dtype == np.int64
    if grid.power_of_two:
        mantissas, _ = np.frexp(found.scales)
        assert (mantissas == 0.5).all()
    if grid.scale is not None:
        assert (found.scales == grid.scale).all()


def test_a_given_scale_stays_also_if_it_is_no_power_of_two() -> None:
    found = round_weights(*problem(0), Grid(7, scale=0.3))
    assert (found.scales == 0.3).all()


def test_sweeps_and_solving_each_help() -> None:
    errors = []
    for grid in (Grid(1, sweeps=0, rounds=0, solves=False), Grid(1, sweeps=0, rounds=0), Grid(1)):
        total = 0.0
        for seed in range(4):
            weights, moments = problem(seed)
            total += output_error(weights, reals(round_weights(weights, moments, grid)), moments)
        errors.append(total)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("grid", GRIDS)
def test_groups_at_once_are_groups_one_by_one(grid: Grid) -> None:
    if grid.power_of_two:
        grid = dataclasses.replace(grid, scale=0.25)  # else the groups limit each other's scales
    weights, moments = problem(9, groups=3, filters=4, columns=18)
    together = round_weights(weights, moments, grid)
    for group in range(3):
        part = slice(group, group + 1)
        own = Moments(
            moments.hessian[part], moments.cross[part], moments.x_mean[part], moments.y_mean[part]
        )
        alone = round_weights(weights[part], own, grid)
        np.testing.assert_array_equal(together.codes[part], alone.codes)
        np.testing.assert_allclose(together.scales[part], alone.scales, rtol=1e-12)


def test_equal_problems_have_equal_answers() -> None:
    first, second = (round_weights(*problem(3, columns=100), Grid(7)) for _ in range(2))
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.scales, second.scales)


def test_columns_beyond_one_block_answer_to_each_other() -> None:
    """150 columns are three blocks; without what crosses them, errors would not cancel."""
    weights, moments = problem(5, columns=150, positions=1000)
    grid = Grid(1)
    own = output_error(weights, reals(round_weights(weights, moments, grid)), moments)
    assert own < 0.7 * output_error(weights, nearest(weights, moments, grid), moments)


def test_what_lies_on_the_grid_and_fits_is_kept() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (1, 5, 12))
    codes[0, :, 0] = 7
    weights = codes * 0.125
    x = rng.normal(size=(1, 500, 12)).astype(np.float32)
    moments = Moments.measured(x.copy(), np.matmul(x, weights[0].T).astype(np.float32))
    found = round_weights(weights, moments, Grid(7))
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scales, 0.125, rtol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    "case", ["zero inputs", "constant", "duplicates", "dead column", "one sample", "zero weights"]
)
def test_degenerate_inputs(grid: Grid, case: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 1 if case == "one sample" else 50, 9)).astype(np.float32)
    weights = rng.normal(size=(2, 3, 9))
    match case:
        case "zero inputs":
            x[:] = 0
        case "constant":
            x[:] = 3.5
        case "duplicates":
            x[..., 1:] = x[..., :1]
        case "dead column":
            x[..., 4] = 0
        case "zero weights":
            weights[0] = 0
            weights[1, 1] = 0
    moments = Moments.measured(x.copy(), np.matmul(x, weights.transpose(0, 2, 1)).astype("float32"))
    with np.errstate(all="raise"):
        found = round_weights(weights, moments, grid)
        bias = kept_bias(reals(found), moments)
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()
    assert np.abs(found.codes).max() <= grid.limit
    assert np.isfinite(bias).all()
    if case == "zero weights":
        assert not found.codes[0].any()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [1.0, 1e-15, 1e12])
def test_one_weight_a_filter(grid: Grid, size: float) -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(4, 1, 1))
    x = (size * rng.normal(size=(4, 30, 1))).astype(np.float32)
    found = round_weights(weights, Moments.measured(x.copy(), (x * weights).astype("f4")), grid)
    assert np.abs(found.codes).max() <= grid.limit
    if not grid.power_of_two:
        np.testing.assert_allclose(reals(found), weights, rtol=0.02)


@pytest.mark.parametrize("grid", GRIDS[:4])
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e15])
def test_a_filter_of_another_size_does_not_disturb_the_others(grid: Grid, size: float) -> None:
    weights, moments = problem(6)
    wanted = np.float32(size)
    weights[0, 1] *= wanted
    moments.cross[0, 1] *= wanted
    with np.errstate(divide="raise", invalid="raise"):
        found = round_weights(weights, moments, grid)
    assert np.abs(found.codes).max() <= grid.limit
    assert (found.scales > 0).all()
    if not grid.power_of_two:  # there, scales far below the largest are not for use
        others = [0, 2, 3, 4, 5]
        alone = round_weights(*problem(6), grid)
        np.testing.assert_array_equal(found.codes[0, others], alone.codes[0, others])


def test_values_whose_squares_do_not_fit_have_none() -> None:
    x = np.full((1, 10, 3), 1e25, np.float32) * np.random.default_rng(0).normal(size=(1, 10, 3))
    moments = Moments.measured(x.astype(np.float32), np.ones((1, 10, 2), np.float32))
    assert not moments.has_squares
    assert problem(0)[1].has_squares
    assert not Moments.of_means(np.ones((1, 4, 5)), np.ones((1, 4, 2))).has_squares


def test_biases_keep_the_means() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(1.0, 1.0, (2, 200, 5)).astype(np.float32)
    y = rng.normal(-2.0, 1.0, (2, 200, 3)).astype(np.float32)
    weights = rng.normal(size=(2, 3, 5))
    for moments in (Moments.measured(x.copy(), y.copy()), Moments.of_means(x, y)):
        bias = kept_bias(weights, moments)
        outputs = np.matmul(x, weights.transpose(0, 2, 1)) + bias[:, None]
        np.testing.assert_allclose(outputs.mean(axis=1), y.mean(axis=1), atol=1e-5)
