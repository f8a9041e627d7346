"""Padding by a constant, by the edge or by reflection."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


class PadMode(enum.Enum):
    """What the new positions hold."""

    CONSTANT = "constant"
    EDGE = "edge"
    REFLECT = "reflect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(Op):
    """Non-negative pads for every axis (negative ones become a `Slice` at import).

    `value` is the real constant; `code` is that constant in the integer stage.
    """

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    mode: PadMode = PadMode.CONSTANT
    value: float = 0.0
    code: int | None = None

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        if len(x) != len(self.begins):
            raise ShapeError(f"{self.label()}: {len(self.begins)} pads for shape {list(x)}")
        if self.mode is PadMode.REFLECT and any(
            max(begin, end) >= size
            for begin, end, size in zip(self.begins, self.ends, x, strict=True)
        ):
            raise ShapeError(
                f"{self.label()}: reflection needs pads smaller than the input, shape {list(x)}"
            )
        return tuple(b + size + e for b, size, e in zip(self.begins, x, self.ends, strict=True))
