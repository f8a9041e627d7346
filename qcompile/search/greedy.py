"""From errors and costs to widths: always give up first what costs the least accuracy.

all at their widest  ->  step by step, the least added error for what is saved  ->  small enough
                     ->  what is left over goes where it helps most
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Part(enum.Enum):
    """Which tensor of an operator a width is for."""

    WEIGHTS = "weights"
    OUTPUT = "output"


Slot = tuple[str, Part]
"""An operator (or graph input, with its OUTPUT) and one of its tensors."""
Widths = Mapping[Slot, int]
"""Bits of every slot that can be chosen."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be chosen for one slot.

    Attributes:
        slot: of which tensor.
        errors: bits -> relative error it adds to the sums that read it.
    """

    slot: Slot
    errors: Mapping[int, float]


class Cost(Protocol):
    """Something that fewer bits make smaller."""

    def total(self, widths: Widths) -> float:
        """Of the whole network."""
        ...

    def change(self, widths: Widths, slot: Slot, bits: int) -> float:
        """What `total` grows by if `slot` gets `bits` instead (negative if it shrinks)."""
        ...


def widest(choices: Sequence[Choice]) -> dict[Slot, int]:
    """Every slot at the most bits it may have."""
    return {choice.slot: max(choice.errors) for choice in choices}


def lowered(choices: Sequence[Choice], cost: Cost) -> Iterator[dict[Slot, int]]:
    """All plans from the widest to the narrowest, each with one slot lower than the one before.

    A step may skip widths: it is the one, of all slots and widths, that adds the least error for
    each unit of `cost` it saves.
    """
    widths = widest(choices)
    yield dict(widths)
    while True:
        best: tuple[float, Slot, int] | None = None
        for choice in choices:
            now = widths[choice.slot]
            for bits, error in choice.errors.items():
                if bits >= now:
                    continue
                saved = -cost.change(widths, choice.slot, bits)
                if saved <= 0:
                    continue
                price = max(0.0, error - choice.errors[now]) / saved
                if best is None or price < best[0]:
                    best = price, choice.slot, bits
        if best is None:
            return
        widths[best[1]] = best[2]
        yield dict(widths)


def filled_up(
    choices: Sequence[Choice], widths: Widths, cost: Cost, budget: float
) -> dict[Slot, int]:
    """`widths` with more bits wherever `budget` still has room, the largest gain for it first."""
    result = dict(widths)
    room = budget - cost.total(result)
    while True:
        best: tuple[float, Slot, int, float] | None = None
        for choice in choices:
            now = result[choice.slot]
            for bits, error in choice.errors.items():
                if bits <= now or error >= choice.errors[now]:
                    continue
                more = cost.change(result, choice.slot, bits)
                if more > room:
                    continue
                gain = (choice.errors[now] - error) / max(more, 1e-9)
                if best is None or gain > best[0]:
                    best = gain, choice.slot, bits, more
        if best is None:
            return result
        result[best[1]] = best[2]
        room -= best[3]


def uniform(choices: Sequence[Choice], bits: int) -> dict[Slot, int]:
    """Every slot at `bits`, or at the nearest width it may have."""
    return {
        choice.slot: min(choice.errors, key=lambda width: (abs(width - bits), -width))
        for choice in choices
    }


def within(choices: Sequence[Choice], cost: Cost, budget: float) -> dict[Slot, int] | None:
    """The widths with the least summed error that are found at a cost of at most `budget`.

    Beside those of greed, each uniform width that fits is tried, filled up: greed may miss by one
    step what a uniform plan hits.

    Returns:
        None where even the narrowest plan costs more.
    """
    starts = [next((w for w in lowered(choices, cost) if cost.total(w) <= budget), None)]
    starts += [uniform(choices, bits) for bits in sorted({b for c in choices for b in c.errors})]
    plans = [
        filled_up(choices, widths, cost, budget)
        for widths in starts
        if widths is not None and cost.total(widths) <= budget
    ]
    return min(plans, key=lambda widths: total_error(choices, widths), default=None)


def total_error(choices: Sequence[Choice], widths: Widths) -> float:
    """Sum of the errors of all slots."""
    return sum(choice.errors[widths[choice.slot]] for choice in choices)
