"""How the positions of one output axis read the positions of an input axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AxisPattern:
    """Output position p reads the input positions base[p] + k * step, k = 0 .. taps - 1.

    Those outside 0 .. size - 1 are padding. Every operator that gathers is such a pattern along
    each axis: convolution, pooling, padding, cropping, resizing and, with a set of weights for each
    phase, transposed convolution and linear interpolation.

    Attributes:
        size: input positions.
        taps: input positions read for each output position.
        step: distance of two taps.
        base: position of the first tap, never descending.
        phase: which set of weights the output position takes.
    """

    size: int
    taps: int
    step: int
    base: tuple[int, ...]
    phase: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.base) != len(self.phase) or not self.base:
            raise ValueError("base and phase have one entry for each output position")
        if any(later < earlier for earlier, later in zip(self.base, self.base[1:], strict=False)):
            raise ValueError("base descends")

    @property
    def positions(self) -> int:
        """Output positions."""
        return len(self.base)

    @property
    def phases(self) -> int:
        return max(self.phase) + 1

    def sources(self, position: int) -> tuple[int | None, ...]:
        """Input position of each tap, None where it is padding."""
        found = (self.base[position] + k * self.step for k in range(self.taps))
        return tuple(source if 0 <= source < self.size else None for source in found)

    def valid(self, position: int) -> tuple[bool, ...]:
        """Whether each tap lies inside."""
        return tuple(source is not None for source in self.sources(position))

    def lowest(self) -> tuple[int, ...]:
        """For each output position the lowest input position that it or a later one reads.

        `size` where none is read any more.
        """
        result = []
        needed = self.size
        for position in reversed(range(self.positions)):
            inside = [source for source in self.sources(position) if source is not None]
            needed = min([needed, *inside])
            result.append(needed)
        return tuple(reversed(result))

    def highest(self) -> tuple[int, ...]:
        """For each output position the highest input position it reads; -1 if none."""
        return tuple(
            max((s for s in self.sources(p) if s is not None), default=-1)
            for p in range(self.positions)
        )


def sliding(
    size: int, kernel: int, stride: int, dilation: int, pad_begin: int, positions: int
) -> AxisPattern:
    """A window of `kernel` taps that moves by `stride`."""
    base = tuple(p * stride - pad_begin for p in range(positions))
    return AxisPattern(size, kernel, dilation, base, (0,) * positions)


def copying(size: int, sources: Sequence[int]) -> AxisPattern:
    """Position p copies input position sources[p] (outside: padding); sources never descend."""
    return AxisPattern(size, 1, 1, tuple(sources), (0,) * len(sources))
