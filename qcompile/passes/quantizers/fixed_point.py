"""`fxp-paper` and `fxp-em`: the published variants of the fixed-point U-Net, bit for bit."""

from __future__ import annotations

import numpy as np

from qcompile.errors import UsageError
from qcompile.fixed_point import QFormat, em_magnitudes
from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.plan import Format, magnitude_type
from qcompile.types import Array, Codebook, CodebookKind

MOST_POWERS = 40
"""`fxp-em` weights may span so many powers of two."""


def fxp_paper(rows: Array, chosen: Format) -> QuantizedRows:
    """Sign and magnitude: wraps at 1 where there are no integer digits, 33 levels for Q0.4."""
    assert chosen.q is not None
    return _paper(chosen.q.paper_codes(rows), chosen.q)


def on_paper_grid(rows: Array, chosen: Format) -> QuantizedRows | None:
    """The codes of weights that are levels of `fxp-paper` already; None for others."""
    assert chosen.q is not None
    steps = rows / chosen.q.step
    codes = np.rint(steps)
    if (codes != steps).any() or np.abs(codes).max(initial=0) > chosen.q.paper_largest:
        return None
    return _paper(codes.astype(np.int64), chosen.q)


def _paper(codes: Array, q: QFormat) -> QuantizedRows:
    element = magnitude_type(q.paper_largest, signed=True)
    book = Codebook(CodebookKind.FXP_PAPER, 2 * q.paper_largest + 1, f"fxp-paper {q}")
    return QuantizedRows(codes, np.full(codes.shape[0], q.step), element, book)


def fxp_em(rows: Array, chosen: Format) -> QuantizedRows:
    """The nearest power of two by logarithm, clipped; the smallest one that occurs is the unit.

    Raises:
        UsageError: the weights span more powers of two than sums can hold.
    """
    assert chosen.q is not None
    magnitudes = em_magnitudes(np.abs(rows), chosen.q.em_clip)
    present = np.unique(magnitudes[magnitudes > 0])
    smallest = float(present[0]) if present.size else 1.0
    if present.size and float(present[-1]) == chosen.q.em_clip:
        smallest = min(smallest, chosen.q.step)
    largest = round(float(present[-1]) / smallest) if present.size else 1
    if largest.bit_length() > MOST_POWERS:
        raise UsageError(
            f"--quantizer fxp-em: weights from {smallest:.3g} to {float(present[-1]):.3g} span "
            f"{largest.bit_length()} powers of two, more than {MOST_POWERS}; set the smallest ones "
            f"to 0, or use fxp-paper"
        )
    codes = (np.sign(rows) * np.rint(magnitudes / smallest)).astype(np.int64)
    levels = 2 * present.size + 1
    book = Codebook(CodebookKind.FXP_EM, levels, f"fxp-em {chosen.q}")
    element = magnitude_type(largest, signed=True)
    return QuantizedRows(codes, np.full(rows.shape[0], smallest), element, book)
