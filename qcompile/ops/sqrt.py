"""The square root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Sqrt(Pointwise):
    """sqrt(x); 0 where x is negative, which only rounding can make of what a root is taken of."""

    def function(self, x: Array) -> Array:
        return np.asarray(np.sqrt(np.maximum(x, 0)))
