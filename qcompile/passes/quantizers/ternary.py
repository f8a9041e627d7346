"""`ternary` and `twn`: {-1, 0, 1} times a magnitude for each row."""

from __future__ import annotations

import numpy as np

from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.plan import Format
from qcompile.types import TERNARY, Array, Codebook, CodebookKind

TWN_FACTOR = 0.7


def ternary(rows: Array, chosen: Format) -> QuantizedRows:
    """The magnitude with the least squared error.

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
    same = magnitudes[index, 0] == limits
    scales = np.where(same, magnitudes[index, 0], scales)
    scales = np.where(scales > 0, scales, 1.0)
    return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.TERNARY, 3))


def twn(rows: Array, chosen: Format) -> QuantizedRows:
    """Ternary weight networks (Li et al., 2016), for networks trained so.

    Per filter: Delta = 0.7 * mean|w|, weights beyond +-Delta (strictly) become +-alpha, their mean
    magnitude. A filter of zeros stays zero.
    """
    magnitudes = np.abs(rows)
    kept = magnitudes > TWN_FACTOR * magnitudes.mean(axis=1, keepdims=True)
    counts = np.maximum(kept.sum(axis=1), 1)
    alphas = np.where(kept, magnitudes, 0.0).sum(axis=1) / counts
    codes = np.where(kept, np.sign(rows), 0).astype(np.int64)
    scales = np.where(alphas > 0, alphas, 1.0)
    book = Codebook(CodebookKind.TERNARY, 3, "twn")
    return QuantizedRows(codes, scales, TERNARY, book)
