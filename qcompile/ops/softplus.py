"""The smooth ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Softplus(Pointwise):
    """log(1 + exp(x)), without overflow."""

    def function(self, x: Array) -> Array:
        return np.asarray(np.logaddexp(x, 0), dtype=x.dtype)
