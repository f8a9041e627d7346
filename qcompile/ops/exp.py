"""The exponential function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Exp(Pointwise):
    """exp(x)."""

    def function(self, x: Array) -> Array:
        return np.asarray(np.exp(x))
