"""The exponential linear unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Elu(Pointwise):
    """x for x >= 0, else alpha * (exp(x) - 1)."""

    alpha: float = 1.0

    def function(self, x: Array) -> Array:
        return np.asarray(
            np.where(x < 0, self.alpha * np.expm1(np.minimum(x, 0)), x), dtype=x.dtype
        )
