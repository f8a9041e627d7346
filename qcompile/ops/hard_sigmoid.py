"""The piecewise-linear sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSigmoid(Pointwise):
    """clip(alpha * x + beta, 0, 1)."""

    alpha: float = 0.2
    beta: float = 0.5

    def function(self, x: Array) -> Array:
        return np.asarray(np.clip(self.alpha * x + self.beta, 0, 1), dtype=x.dtype)
