"""Real numbers to codes: float inputs of the model and the far end of a float island."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.graph import Op
from qcompile.types import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize(Op):
    """code = clamp(floor((double)x * inverse[c] + offset[c]), low, high): two double operations.

    `inverse` and `offset` have one entry or one per channel (axis 1); the offset contains the half.
    NaN becomes code 0 (clamped to low..high), infinities saturate (contract, rule 9).
    """

    inverse: tuple[float, ...]
    offset: tuple[float, ...]
    low: int
    high: int

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]
