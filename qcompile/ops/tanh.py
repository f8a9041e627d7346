"""The hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh(Pointwise):
    """tanh(x)."""

    def function(self, x: Array) -> Array:
        return np.asarray(np.tanh(x))
