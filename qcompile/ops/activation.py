"""The piecewise-linear function that a sum operator applies to its real-valued result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.types import Array, per_channel


@dataclass(frozen=True, slots=True)
class Activation:
    """y = clip(gain * leaky(z) + shift, low, high), leaky(z) = z if z >= 0 else slope * z.

    `slope`, `gain` and `shift` have one entry, or one per channel. A plain ReLU is slope (0,), a
    norm after a ReLU adds gain and shift, ReLU6 is low 0 and high 6.
    """

    slope: tuple[float, ...] = (1.0,)
    gain: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_identity(self) -> bool:
        return self == IDENTITY

    @property
    def is_nonnegative(self) -> bool:
        """The result is never negative, whatever the sum."""
        plain_relu = (
            all(s <= 0 for s in self.slope)
            and all(g >= 0 for g in self.gain)
            and all(b >= 0 for b in self.shift)
        )
        return self.low >= 0 or (plain_relu and self.high >= 0)

    @property
    def keeps_nonnegative(self) -> bool:
        """A non-negative sum gives a non-negative result."""
        rises = all(g >= 0 for g in self.gain) and all(b >= 0 for b in self.shift)
        return self.low >= 0 or (rises and self.high >= 0)

    def apply(self, z: Array, axis: int) -> Array:
        """The function on a float array whose channels lie on `axis`, in the array's own dtype."""
        dtype = str(z.dtype)
        if self.slope != (1.0,):
            z = np.where(z < 0, z * per_channel(self.slope, dtype, axis, z.ndim), z)
        if self.gain != (1.0,):
            z = z * per_channel(self.gain, dtype, axis, z.ndim)
        if self.shift != (0.0,):
            z = z + per_channel(self.shift, dtype, axis, z.ndim)
        if self.low != -math.inf or self.high != math.inf:
            z = np.clip(z, z.dtype.type(self.low), z.dtype.type(self.high))
        return z

    def __str__(self) -> str:
        parts = []
        if self.slope == (0.0,):
            parts.append("relu")
        elif self.slope != (1.0,):
            parts.append(f"leaky({_show(self.slope)})")
        if self.gain != (1.0,) or self.shift != (0.0,):
            parts.append("affine")
        if self.low != -math.inf or self.high != math.inf:
            parts.append(f"clip({self.low:g}, {self.high:g})")
        return "+".join(parts) or "none"


def _show(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{len(values)} slopes"


IDENTITY = Activation()
RELU = Activation(slope=(0.0,))
