"""The Gaussian error linear unit (Hendrycks and Gimpel, arXiv 1606.08415)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcompile.ops.erf import error_function
from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Gelu(Pointwise):
    """x * (1 + erf(x / sqrt(2))) / 2, or with `tanh` its approximation
    x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2."""

    tanh: bool = False

    def function(self, x: Array) -> Array:
        if self.tanh:
            gate = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        else:
            gate = error_function(x * math.sqrt(0.5))
        return np.asarray(x * 0.5 * (1 + gate), dtype=x.dtype)
