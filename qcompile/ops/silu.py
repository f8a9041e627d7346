"""The swish function (a Sigmoid and a Mul of the same tensor)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Silu(Pointwise):
    """x / (1 + exp(-x))."""

    def function(self, x: Array) -> Array:
        return np.asarray(x * 0.5 * (1 + np.tanh(0.5 * x)), dtype=x.dtype)
