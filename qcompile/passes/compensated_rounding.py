"""Rounding a layer's weights so that its outputs, not the weights themselves, change least.

All of it works on matrices: R filters with K weights each, for G groups with inputs of their own.
With x an input row (already quantised) and y what the float network computes, the error of a filter
w is E|y - w x - b|^2; the bias takes the means, so that with centred x and y

    error(w) = (w - w*) H (w - w*)' + constant,   H = E x'x,   w* = w + E(y - w x)'x / H

which is minimised over the grid scale * {-limit..limit}: by optimal-brain rounding of one column
after the other, the columns not yet rounded making up for each error (GPTQ, Frantar et al. 2023),
then by coordinate descent, each followed by the best scale for the codes found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.passes.quantizers.uniform import power_of_two_steps
from qcompile.types import Array

DAMPING = 0.01
"""Share of the mean diagonal of H that is added to it."""
BLOCK = 64
SCALE_STEPS = np.linspace(0.25, 1.0, 41)
POWERS_BELOW = 4
SMALLEST = float(np.finfo(np.float32).tiny)
"""Filters with smaller weights are filters of zeros: their scales would be 0 in float32."""


@dataclass(frozen=True)
class Moments:
    """What rounding must know of a layer's inputs and wanted outputs.

    Attributes:
        hessian: E x'x of centred inputs, float32 [G, K, K].
        cross: E y'x of centred outputs and inputs, float32 [G, R, K].
        x_mean: [G, K]; y_mean: [G, R].
    """

    hessian: Array
    cross: Array
    x_mean: Array
    y_mean: Array

    @property
    def has_squares(self) -> bool:
        """Whether weights can be rounded by them: those of values beyond 1e19 do not fit float32,
        those of very many columns are not taken."""
        squares = np.diagonal(self.hessian, axis1=1, axis2=2)
        finite = all(bool(np.isfinite(data).all()) for data in (squares, self.cross))
        return finite and squares.size > 0

    @staticmethod
    def of_means(x: Array, y: Array) -> Moments:
        """Without squares, for biases alone; arguments as for `measured`."""
        groups, channels = len(x), y.shape[2]
        none = np.zeros((groups, 0, 0), np.float32), np.zeros((groups, channels, 0), np.float32)
        return Moments(*none, x.mean(axis=1), y.mean(axis=1))

    @staticmethod
    def measured(x: Array, y: Array) -> Moments:
        """Of inputs [G, positions, K] and outputs [G, positions, R]; `x` and `y` are given away."""
        with np.errstate(over="ignore", invalid="ignore"):  # see `has_squares`
            x_mean, y_mean = x.mean(axis=1), y.mean(axis=1)
            x -= x_mean[:, None]
            y -= y_mean[:, None]
            transposed = x.transpose(0, 2, 1)
            count = x.shape[1]
            hessian = np.matmul(transposed, x) / count
            cross = np.matmul(y.transpose(0, 2, 1), x) / count
        return Moments(hessian, cross, x_mean, y_mean)


@dataclass(frozen=True)
class Grid:
    """Codes -limit..limit times one scale for each filter.

    `power_of_two` scales are 2**n; a given `scale` is that of all filters. `sweeps` of coordinate
    descent follow each of `rounds` scale refits; `solves` says whether w* is computed, or the float
    weights are taken for it. Each filter keeps the best result of all `starts`, multiples of the
    scale that is best for its weights alone.
    """

    limit: int
    power_of_two: bool = False
    scale: float | None = None
    rounds: int = 2
    sweeps: int = 2
    solves: bool = True
    starts: tuple[float, ...] = (1.0,)

    @property
    def refits(self) -> bool:
        """Whether scales may take any value."""
        return not self.power_of_two and self.scale is None


@dataclass(frozen=True)
class Rounded:
    """codes [G, R, K] (int64) and scales [G, R]."""

    codes: Array
    scales: Array


def round_weights(weights: Array, moments: Moments, grid: Grid) -> Rounded:
    """The codes and scales with the least output error that the closed form finds.

    Args:
        weights: float [G, R, K].
        moments: of the same sizes.
        grid: the codes allowed.
    """
    weights = weights.astype(np.float64)
    hessian = _damped(moments.hessian.astype(np.float64))
    target = weights
    if grid.solves:
        rest = moments.cross - np.matmul(weights, moments.hessian)
        target = weights + np.linalg.solve(hessian, rest.transpose(0, 2, 1)).transpose(0, 2, 1)
    target = np.where(np.abs(target).max(axis=2, keepdims=True) < SMALLEST, 0.0, target)
    importance = np.diagonal(hessian, axis1=1, axis2=2)
    scales = best_scales(target, importance, grid)
    single = hessian.astype(np.float32)
    answers = _answers(hessian)
    best: Rounded | None = None
    least = np.full(scales.shape, np.inf)
    starts = grid.starts if grid.refits else (1.0,)
    for start in starts:
        found = _improved(target, scales * start, single, answers, grid)
        error = _error(found, target, single)
        better = error < least
        least = np.where(better, error, least)
        best = found if best is None else _chosen(better, found, best)
    assert best is not None
    return best


def _improved(
    target: Array, scales: Array, hessian: Array, answers: tuple[Array, Array], grid: Grid
) -> Rounded:
    """Codes rounded from these scales on, and improved."""
    codes = _compensated(target, scales, answers, grid.limit)
    for _ in range(grid.rounds):
        if grid.refits:
            scales = _refitted(codes, target, scales, hessian)
        for _ in range(grid.sweeps):
            codes = _descended(codes, target, scales, hessian, grid.limit)
    if grid.refits:
        scales = _refitted(codes, target, scales, hessian)
    return Rounded(codes.astype(np.int64), scales)


def _error(found: Rounded, target: Array, hessian: Array) -> Array:
    """(w - w*) H (w - w*)' of every filter [G, R]."""
    difference = (found.codes * found.scales[..., None] - target).astype(np.float32)
    return np.asarray((np.matmul(difference, hessian) * difference).sum(axis=2))


def _chosen(first: Array, found: Rounded, other: Rounded) -> Rounded:
    """Filter by filter, those of `found` where `first` says so."""
    return Rounded(
        np.where(first[..., None], found.codes, other.codes),
        np.where(first, found.scales, other.scales),
    )


def kept_bias(weights: Array, moments: Moments) -> Array:
    """The bias [G, R] with which real weights [G, R, K] keep the mean of each output."""
    products = np.matmul(weights, moments.x_mean[..., None].astype(np.float64))[..., 0]
    return np.asarray(moments.y_mean - products)


def _damped(hessian: Array) -> Array:
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    mean = diagonal.mean(axis=1)
    extra = np.where(mean > 0, DAMPING * mean, 1.0)
    return hessian + extra[:, None, None] * np.eye(hessian.shape[1])


def best_scales(target: Array, importance: Array, grid: Grid) -> Array:
    """For each filter the scale [G, R] with the least squared rounding error of its weights
    [G, R, K], each weight counting as its input's second moment [G, K] says."""
    largest = np.abs(target).max(axis=2)
    if grid.scale is not None:
        return np.full(largest.shape, grid.scale)
    largest = np.where(largest > 0, largest, 1.0)
    widest = largest / grid.limit
    if grid.power_of_two:
        widest = power_of_two_steps(np.abs(target).max(axis=2) / grid.limit)
        candidates = [widest / 2.0**power for power in range(POWERS_BELOW)]
    else:
        candidates = [widest * step for step in SCALE_STEPS]
    best = widest.copy()
    error = np.full(widest.shape, np.inf)
    values = target.astype(np.float32)
    factors = importance.astype(np.float32)[:, None, :]
    for candidate in candidates:
        scale = candidate[..., None].astype(np.float32)
        codes = np.clip(np.rint(values / scale), -grid.limit, grid.limit)
        codes *= scale
        codes -= values
        np.square(codes, out=codes)
        current = (codes * factors).sum(axis=2)
        better = current < error
        best[better] = candidate[better]
        error[better] = current[better]
    return best


def _answers(hessian: Array) -> tuple[Array, Array]:
    """Columns in the order they are rounded in, heavy ones first [G, K], and the factor U [G, K, K]
    of the inverse of H in that order, U'U: row j says how later columns answer to j's error."""
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    sorted_hessian = np.take_along_axis(
        np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2
    )
    inverse = np.linalg.inv(sorted_hessian)
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    return order, np.ascontiguousarray(upper).astype(np.float32)


def _compensated(target: Array, scales: Array, answers: tuple[Array, Array], limit: int) -> Array:
    """Codes (float32), rounded column by column."""
    order, upper = answers
    back = np.argsort(order, axis=1)
    rest = np.take_along_axis(target, order[:, None, :], 2).astype(np.float32)
    codes = np.zeros(rest.shape, np.float32)
    steps = scales.astype(np.float32)
    columns = rest.shape[2]
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        errors = np.zeros((*rest.shape[:2], last - first), np.float32)
        block = np.ascontiguousarray(rest[:, :, first:last])
        for j in range(last - first):
            at = first + j
            column = block[:, :, j]
            rounded = np.clip(np.rint(column / steps), -limit, limit)
            codes[:, :, at] = rounded
            error = (column - rounded * steps) / upper[:, at, at][:, None]
            block[:, :, j:] -= error[:, :, None] * upper[:, None, at, at + 0 : last]
            errors[:, :, j] = error
        rest[:, :, last:] -= np.matmul(errors, upper[:, first:last, last:])
    return np.take_along_axis(codes, back[:, None, :], 2)


def _refitted(codes: Array, target: Array, scales: Array, hessian: Array) -> Array:
    """The scale of each filter that fits its codes best: (q H w*') / (q H q')."""
    weighted = np.matmul(codes.astype(np.float32), hessian)
    above = (weighted * target).sum(axis=2)
    below = (weighted * codes).sum(axis=2)
    fitted = np.where(below > 0, above / np.where(below > 0, below, 1.0), scales)
    return np.clip(fitted, scales / 2, scales * 2)


def _descended(codes: Array, target: Array, scales: Array, hessian: Array, limit: int) -> Array:
    """One sweep: each column in turn takes the code that is best given all the others."""
    codes = codes.astype(np.float32)
    steps = scales.astype(np.float32)
    difference = codes * steps[..., None] - target.astype(np.float32)
    slopes = np.matmul(difference, hessian)
    columns = codes.shape[2]
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        changes = np.zeros((*codes.shape[:2], last - first), np.float32)
        local = np.ascontiguousarray(slopes[:, :, first:last])
        inner = np.ascontiguousarray(hessian[:, first:last, first:last])
        for j in range(last - first):
            old = codes[:, :, first + j]
            wanted = old - local[:, :, j] / (inner[:, j, j][:, None] * steps)
            new = np.clip(np.rint(wanted), -limit, limit)
            change = (new - old) * steps
            if not change.any():
                continue
            codes[:, :, first + j] = new
            local += change[:, :, None] * inner[:, j][:, None, :]
            changes[:, :, j] = change
        if changes.any():
            slopes += np.matmul(changes, hessian[:, first:last])
    return codes
