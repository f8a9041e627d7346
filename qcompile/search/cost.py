"""What widths cost before anything is compiled: bits of weights, and operations times bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.search.greedy import Part, Slot, Widths


@dataclass(frozen=True)
class WeightBits:
    """Bits of all weights.

    Attributes:
        sizes: operator name -> how many weights it has; those without a slot are left out.
    """

    sizes: Mapping[str, int]

    def total(self, widths: Widths) -> float:
        """Bits of all weights with a slot."""
        return float(
            sum(self.sizes[name] * bits for (name, part), bits in widths.items() if _is(part))
        )

    def change(self, widths: Widths, slot: Slot, bits: int) -> float:
        """0 for activations."""
        name, part = slot
        return float(self.sizes[name] * (bits - widths[slot])) if _is(part) else 0.0


def _is(part: Part) -> bool:
    return part is Part.WEIGHTS
