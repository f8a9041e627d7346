"""`binary`: signs."""

from __future__ import annotations

import numpy as np

from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.plan import Format
from qcompile.types import TERNARY, Array, Codebook, CodebookKind


def binary(rows: Array, chosen: Format) -> QuantizedRows:
    """Signs (zero counts as positive) times the mean magnitude of the row."""
    codes = np.where(rows < 0, -1, 1).astype(np.int64)
    scales = np.abs(rows).mean(axis=1)
    scales = np.where(scales > 0, scales, 1.0)
    return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.BINARY, 2))
