"""`scaled` and `fixed`: equal steps."""

from __future__ import annotations

import numpy as np

from qcompile.passes.quantizers.rows import QuantizedRows, largest_magnitudes
from qcompile.plan import Format
from qcompile.types import Array, Codebook, CodebookKind, IntType

GRID = np.linspace(0.3, 1.0, 57)
POWERS_BELOW = 4
SMALLEST_STEP = 2.0**-24
"""Of a layer's largest power-of-two step: filters of smaller weights are 0 (an exact multiplier for
them would have more bits than there are)."""


def scaled(rows: Array, chosen: Format) -> QuantizedRows:
    """Narrow; the scale of each row by least squared error."""
    element = IntType(chosen.bits, narrow=True)
    widest = largest_magnitudes(rows) / element.high
    candidates = widest[:, None] * GRID[::-1][None, :]
    return _uniform(rows, _least_error(rows, candidates, element), element)


def fixed(rows: Array, chosen: Format) -> QuantizedRows:
    """Narrow, with power-of-two scales: the given one, or for each row that of least error."""
    element = IntType(chosen.bits, narrow=True)
    if chosen.q is not None:
        return _uniform(rows, np.full(rows.shape[0], chosen.q.step), element)
    widest = power_of_two_steps(np.abs(rows).max(axis=1, initial=0.0) / element.high)
    candidates = widest[:, None] / np.exp2(np.arange(POWERS_BELOW))[None, :]
    return _uniform(rows, _least_error(rows, candidates, element), element)


def power_of_two_steps(steps: Array) -> Array:
    """The next greater powers of two, none of them far below the largest; zeros get the largest."""
    largest = float(steps.max(initial=0.0)) or 1.0
    live = np.where(steps > 0, steps, largest)
    return np.asarray(np.exp2(np.ceil(np.log2(np.maximum(live, largest * SMALLEST_STEP)))))


def _round(values: Array) -> Array:
    return np.floor(values + 0.5)


def _least_error(rows: Array, candidates: Array, element: IntType) -> Array:
    """For each row the candidate scale (column of [channels, k]) with the least squared error."""
    best = candidates[:, 0].copy()
    error = np.full(rows.shape[0], np.inf)
    for column in range(candidates.shape[1]):
        scale = candidates[:, column]
        codes = np.clip(_round(rows / scale[:, None]), element.low, element.high)
        current = np.square(codes * scale[:, None] - rows).sum(axis=1)
        better = current < error
        best[better] = scale[better]
        error[better] = current[better]
    return best


def _uniform(rows: Array, scales: Array, element: IntType) -> QuantizedRows:
    codes = np.clip(_round(rows / scales[:, None]), element.low, element.high).astype(np.int64)
    levels = element.high - element.low + 1
    return QuantizedRows(codes, scales, element, Codebook(CodebookKind.UNIFORM, levels))
