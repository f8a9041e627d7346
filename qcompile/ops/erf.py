"""The error function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array

_ERF = np.frompyfunc(math.erf, 1, 1)


def error_function(x: Array) -> Array:
    """erf(x), computed in double, in the dtype of `x`."""
    return np.asarray(_ERF(np.asarray(x, dtype=np.float64)), dtype=x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erf(Pointwise):
    """erf(x)."""

    def function(self, x: Array) -> Array:
        return error_function(x)
