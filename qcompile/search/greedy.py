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


@dataclass(frozen=True, slots=True)
class Limit:
    """A cost and the most it may be.

    Attributes:
        cost: by widths.
        most: the budget.
        fixed: what is spent already, whatever the widths.
        factor: units of the budget in one unit of the cost.
    """

    cost: Cost
    most: float
    fixed: float = 0.0
    factor: float = 1.0

    def room(self, widths: Widths) -> float:
        """What is left of the budget, in units of the cost; negative where it is exceeded."""
        return (self.most - self.fixed) / self.factor - self.cost.total(widths)


@dataclass(frozen=True)
class Shares:
    """Several costs as one: each in shares of its budget."""

    limits: Sequence[Limit]

    def total(self, widths: Widths) -> float:
        """1 for each budget that is just used up."""
        return sum(
            (limit.cost.total(widths) * limit.factor + limit.fixed) / max(limit.most, 1e-9)
            for limit in self.limits
        )

    def change(self, widths: Widths, slot: Slot, bits: int) -> float:
        """As of `total`."""
        return sum(
            limit.cost.change(widths, slot, bits) * limit.factor / max(limit.most, 1e-9)
            for limit in self.limits
        )


def filled_up(
    choices: Sequence[Choice], widths: Widths, limits: Sequence[Limit]
) -> dict[Slot, int]:
    """`widths` with more bits wherever all limits have room, the largest gain for it first."""
    result = dict(widths)
    rooms = [limit.room(result) for limit in limits]
    while True:
        best: tuple[float, Slot, int, list[float]] | None = None
        for choice in choices:
            now = result[choice.slot]
            for bits, error in choice.errors.items():
                if bits <= now or error >= choice.errors[now]:
                    continue
                more = [limit.cost.change(result, choice.slot, bits) for limit in limits]
                if any(extra > room for extra, room in zip(more, rooms, strict=True)):
                    continue
                share = sum(e / max(room, 1e-9) for e, room in zip(more, rooms, strict=True))
                gain = (choice.errors[now] - error) / max(share, 1e-9)
                if best is None or gain > best[0]:
                    best = gain, choice.slot, bits, more
        if best is None:
            return result
        result[best[1]] = best[2]
        rooms = [room - extra for room, extra in zip(rooms, best[3], strict=True)]


def uniform(choices: Sequence[Choice], bits: int) -> dict[Slot, int]:
    """Every slot at `bits`, or at the nearest width it may have."""
    return {
        choice.slot: min(choice.errors, key=lambda width: (abs(width - bits), -width))
        for choice in choices
    }


def within(choices: Sequence[Choice], limits: Sequence[Limit]) -> dict[Slot, int] | None:
    """The widths with the least summed error that are found within all limits.

    Beside those of greed, each uniform width that fits is tried, filled up: greed may miss by one
    step what a uniform plan hits.

    Returns:
        None where even the narrowest plan costs more.
    """

    def holds(widths: Widths) -> bool:
        return all(limit.room(widths) >= 0 for limit in limits)

    starts = [next(filter(holds, lowered(choices, Shares(limits))), None)]
    starts += [uniform(choices, bits) for bits in sorted({b for c in choices for b in c.errors})]
    plans = [
        filled_up(choices, widths, limits)
        for widths in starts
        if widths is not None and holds(widths)
    ]
    return min(plans, key=lambda widths: total_error(choices, widths), default=None)


def total_error(choices: Sequence[Choice], widths: Widths) -> float:
    """Sum of the errors of all slots."""
    return sum(choice.errors[widths[choice.slot]] for choice in choices)
