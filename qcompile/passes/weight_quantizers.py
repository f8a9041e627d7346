"""Weights to codes: one function for each named quantizer.

Every function takes a float64 matrix [channels, weights of the channel] and returns codes of the
same shape, one scale per row, the element type and the codebook kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qcompile.errors import UsageError
from qcompile.plan import Format, Quantizer
from qcompile.types import TERNARY, Array, Codebook, CodebookKind, IntType

GRID = np.linspace(0.3, 1.0, 57)
POWERS_BELOW = 4


@dataclass(frozen=True)
class QuantizedRows:
    """codes [channels, n] (int64), scales [channels], and what the codes are."""

    codes: Array
    scales: Array
    element: IntType
    codebook: Codebook


def quantize_rows(rows: Array, chosen: Format) -> QuantizedRows:
    """`rows` in the given format.

    Raises:
        UsageError: the width does not exist for this quantizer.
    """
    return _QUANTIZERS[chosen.quantizer](np.asarray(rows, dtype=np.float64), chosen)


def _round(values: Array) -> Array:
    return np.floor(values + 0.5)


def _largest(rows: Array) -> Array:
    largest = np.abs(rows).max(axis=1, initial=0.0)
    return np.where(largest > 0, largest, 1.0)


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


def _scaled(rows: Array, chosen: Format) -> QuantizedRows:
    """Uniform and narrow; the scale of each row by least squared error."""
    element = IntType(chosen.bits, narrow=True)
    widest = _largest(rows) / element.high
    candidates = widest[:, None] * GRID[::-1][None, :]
    return _uniform(rows, _least_error(rows, candidates, element), element)


def _fixed(rows: Array, chosen: Format) -> QuantizedRows:
    """Uniform with power-of-two scales."""
    element = IntType(chosen.bits, narrow=True)
    widest = np.exp2(np.ceil(np.log2(_largest(rows) / element.high)))
    candidates = widest[:, None] / np.exp2(np.arange(POWERS_BELOW))[None, :]
    return _uniform(rows, _least_error(rows, candidates, element), element)


def _ternary(rows: Array, chosen: Format) -> QuantizedRows:
    """{-1, 0, 1} times the magnitude with the least squared error.

    With magnitudes sorted downwards, keeping the first k at their mean leaves the error
    sum(w**2) - (sum of the k largest)**2 / k, so the best k maximises the last term. Rows that
    already lie on {-a, 0, a} come out exact.
    """
    magnitudes = np.sort(np.abs(rows), axis=1)[:, ::-1]
    counts = np.arange(1, rows.shape[1] + 1)
    sums = np.cumsum(magnitudes, axis=1)
    best = np.argmax(np.square(sums) / counts, axis=1)
    index = np.arange(rows.shape[0])
    scales = sums[index, best] / counts[best]
    limits = magnitudes[index, best]
    codes = np.where(np.abs(rows) >= limits[:, None], np.sign(rows), 0).astype(np.int64)
    exact = np.abs(magnitudes[index, 0] - limits) == 0
    scales = np.where(exact, magnitudes[index, 0], scales)
    scales = np.where(scales > 0, scales, 1.0)
    return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.TERNARY, 3))


def _binary(rows: Array, chosen: Format) -> QuantizedRows:
    """Signs (zero counts as positive) times the mean magnitude."""
    codes = np.where(rows < 0, -1, 1).astype(np.int64)
    scales = np.abs(rows).mean(axis=1)
    scales = np.where(scales > 0, scales, 1.0)
    return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.BINARY, 2))


def _pow2(rows: Array, chosen: Format) -> QuantizedRows:
    """0 and +-2**n, n2 <= n <= n1, for the whole tensor (incremental network quantization, 2017).

    n1 = floor(log2(4 max|W| / 3)), n2 = n1 + 1 - 2**(bits - 2); 2**n stands for magnitudes from
    3/4 * 2**n up to 3/2 * 2**n, the smallest one for those from half of it.
    """
    if not 2 <= chosen.bits <= 7:
        raise UsageError(
            f"--quantizer pow2 has 2 to 7 bits, not {chosen.bits}; choose one of these as --wbits"
        )
    exponents = 2 ** (chosen.bits - 2)
    largest = float(np.abs(rows).max(initial=0.0)) or 1.0
    top = math.floor(math.log2(4 * largest / 3))
    bottom = top + 1 - exponents
    codes = np.zeros(rows.shape, dtype=np.int64)
    for exponent in range(bottom, top + 1):
        lower = 2.0**exponent * (0.5 if exponent == bottom else 0.75)
        codes[np.abs(rows) >= lower] = 1 << (exponent - bottom)
    codes *= np.sign(rows).astype(np.int64)
    scales = np.full(rows.shape[0], 2.0**bottom)
    element = IntType(exponents + 1, narrow=True)
    return QuantizedRows(codes, scales, element, Codebook(CodebookKind.POW2, 2 * exponents + 1))


_QUANTIZERS: dict[Quantizer, Callable[[Array, Format], QuantizedRows]] = {
    Quantizer.SCALED: _scaled,
    Quantizer.FIXED: _fixed,
    Quantizer.TERNARY: _ternary,
    Quantizer.BINARY: _binary,
    Quantizer.POW2: _pow2,
}
