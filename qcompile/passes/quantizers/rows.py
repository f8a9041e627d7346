"""What a quantizer of weights returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.types import Array, Codebook, IntType


@dataclass(frozen=True)
class QuantizedRows:
    """codes [channels, n] (int64), scales [channels], and what the codes are."""

    codes: Array
    scales: Array
    element: IntType
    codebook: Codebook

    def reals(self) -> Array:
        """What the codes stand for, float64 [channels, n]."""
        return np.asarray(self.codes * self.scales[:, None])


def largest_magnitudes(rows: Array) -> Array:
    """The largest magnitude of each row, 1 for rows of zeros."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    return np.where(largest > 0, largest, 1.0)
