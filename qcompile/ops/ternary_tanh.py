"""The ternary hyperbolic tangent: a smooth stand-in for rounding to -1, 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryTanh(Pointwise):
    """(tanh(2 beta x - beta) - tanh(-2 beta x - beta)) / 2, two steps at -1/2 and 1/2.

    The larger `beta`, the steeper; the limit is sign(x) where |x| > 1/2, else 0 (Heinrich et al.
    2018, "TernaryNet"). `HardenTernaryTanh` puts the limit in its place.
    """

    beta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"{self.label()}: beta {self.beta} is not a positive number")

    def function(self, x: Array) -> Array:
        steep = x * x.dtype.type(2 * self.beta)
        beta = x.dtype.type(self.beta)
        half = x.dtype.type(0.5)
        return np.asarray((np.tanh(steep - beta) - np.tanh(-steep - beta)) * half)
