"""What one plan turned out to be worth and to cost."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of one compiled candidate; None where a target or the data have no such number.

    Attributes:
        bytes: constants as the C program stores them; nominal weights where it cannot be made.
        bops: products times the bits of both factors.
        arena: working memory of the C program, bytes.
        luts, ram_bits, multipliers, fps: of the accelerator, estimated.
        mean_wbits: bits of weights, the mean over all weights.
        sqnr_db: of the last layer's outputs against the float network's, on calibration images.
        dice, dice_float: on `--data`.
        seconds: it took.
        refused: why the target cannot have it, '' if it can.
    """

    bytes: int = 0
    bops: int = 0
    arena: int | None = None
    luts: int | None = None
    ram_bits: int | None = None
    multipliers: int | None = None
    fps: float | None = None
    mean_wbits: float = 0.0
    sqnr_db: float | None = None
    dice: float | None = None
    dice_float: float | None = None
    seconds: float = 0.0
    refused: str = ""

    @property
    def drop(self) -> float | None:
        """Dice lost against the float network, rounded as people read it."""
        if self.dice is None or self.dice_float is None:
            return None
        return round(self.dice_float - self.dice, 6)

    @property
    def quality(self) -> tuple[float, float]:
        """Greater is better: Dice where it was measured, then SQNR."""
        if self.refused:
            return -math.inf, -math.inf
        sqnr = -math.inf if self.sqnr_db is None else self.sqnr_db
        return (0.0 if self.dice is None else round(self.dice, 6)), sqnr

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Measured:
        """
        Raises:
            ValueError: it was written by another version, or is damaged.
        """
        known = {item.name for item in dataclasses.fields(Measured)}
        if set(document) != known:
            raise ValueError("has other fields")
        return Measured(**document)
