"""What a search over widths finds: a trade-off between size and Dice, and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One compiled network among several.

    Attributes:
        bytes: of its weights.
        dice: mean Dice, 0 to 1.
        label: what it is, e.g. '4/6 bits' or 'mixed, 3.0 bits'.
        chosen: whether it is the one that this report is about.
    """

    bytes: int
    dice: float
    label: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class WidthReason:
    """Why a search gave a tensor its bits.

    Attributes:
        name: of the operator, or of the network input.
        tensor: 'weights' or 'output'.
        bits: chosen.
        error: noise that these bits add to the sums that read the tensor, relative to their power.
        narrower: the same with the next fewer bits; None at the fewest that were offered.
    """

    name: str
    tensor: str
    bits: int
    error: float
    narrower: float | None


def front(points: Sequence[TradeOffPoint]) -> tuple[TradeOffPoint, ...]:
    """The points that no other one beats (fewer bytes and no less Dice), by rising bytes."""
    best: list[TradeOffPoint] = []
    for point in sorted(points, key=lambda item: (item.bytes, -item.dice)):
        if not best or point.dice > best[-1].dice:
            best.append(point)
    return tuple(best)
