"""The piecewise polynomial swish."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSwish(Pointwise):
    """x * clip(x / 6 + 1/2, 0, 1)."""

    def function(self, x: Array) -> Array:
        return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1), dtype=x.dtype)
