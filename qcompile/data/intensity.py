"""From intensities (Hounsfield units, counts of an MR scanner, 16-bit pixels) to raw elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.data_options import Window, WindowKind
from qcompile.errors import DataError
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window resolved for one image or volume: `low` and `high` are intensities, for ZSCORE mean
    and standard deviation."""

    kind: WindowKind
    low: float
    high: float

    def apply(self, values: Array) -> Array:
        """uint8 pixels floor((v - low) * 255 / (high - low) + 1/2), clipped; or float32."""
        if self.kind is WindowKind.RAW:
            return values.astype(np.float32)
        if self.kind is WindowKind.ZSCORE:
            return ((values - self.low) / (self.high or 1.0)).astype(np.float32)
        # An image of one intensity has no range: black.
        extent = self.high - self.low if self.high > self.low else 1.0
        pixels = (np.clip(values, self.low, self.high) - self.low) * 255.0 / extent
        return np.floor(pixels + 0.5).astype(np.uint8)


def resolve_window(window: Window, values: Array, label: str) -> Stretch:
    """
    Args:
        window: what is asked for.
        values: all intensities of the image or volume that percentiles and mean are taken of.
        label: names it in messages.

    Raises:
        DataError: there are NaN or infinite intensities.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{label}: has NaN or infinite intensities; clean the data")
    if window.kind is WindowKind.PERCENTILES:
        low, high = np.percentile(values, [window.low, window.high])
        return Stretch(window.kind, float(low), float(high))
    if window.kind is WindowKind.ZSCORE:
        mean = float(values.mean(dtype=np.float64))
        return Stretch(window.kind, mean, float(values.std(dtype=np.float64)))
    return Stretch(window.kind, window.low, window.high)


def windowed(values: Array, window: Window | None, label: str) -> Array:
    """One image on its own; without a window it is left as it is."""
    return values if window is None else resolve_window(window, values, label).apply(values)


def gives_floats(element: np.dtype[np.generic], window: Window | None, label: str) -> bool:
    """Whether images of such elements become floats (else uint8 pixels).

    Raises:
        DataError: integers of more than 8 bits without a window.
    """
    if window is not None:
        return not window.is_pixels
    if element.kind == "f":
        return True
    if element != np.uint8:
        raise DataError(
            f"{label}: has intensities of type {element}; say how they become pixels with --window "
            f"(LOW,HIGH, p1,p99, zscore or raw)"
        )
    return False
