"""One class against the background: is the element above a limit?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold(Op):
    """y = 1 where x > limit, else 0; one unsigned bit in every stage.

    Integer form: code > code_limit with code_limit = floor(limit / scale), which is exact.
    """

    limit: float
    code_limit: int | None = None

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]
