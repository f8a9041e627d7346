"""Piecewise constant functions: comparisons, signs, and what is computed from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcompile.ops.pointwise import Pointwise
from qcompile.types import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps(Pointwise):
    """A function that is constant between its limits, and says what it is at each of them.

    With n rising `limits` there are 2n + 1 `values`: below the first limit, at it, between it and
    the second, ..., above the last. x > 3 is limits (3,), values (0, 0, 1); sign(x) is limits (0,),
    values (-1, 0, 1); sign(x) where |x| > 1/2 else 0 is limits (-1/2, 1/2), values
    (-1, 0, 0, 0, 1).
    """

    limits: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip(self.limits, self.limits[1:], strict=False))
        finite = all(map(math.isfinite, (*self.limits, *self.values)))
        if not rises or not finite or len(self.values) != 2 * len(self.limits) + 1:
            raise ValueError(
                f"{self.label()}: {len(self.limits)} limits must rise and have twice as many "
                f"values and one, all finite, not {len(self.values)}"
            )

    def function(self, x: Array) -> Array:
        place = np.zeros(np.shape(x), dtype=np.intp)
        for limit in self.limits:
            place += (x >= x.dtype.type(limit)).astype(np.intp)
            place += x > x.dtype.type(limit)
        return np.asarray(np.asarray(self.values, dtype=x.dtype)[place])
