"""Weights of operators that treat channels one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, eq=False)
class ChannelWeights:
    """Weights that differ from channel to channel (depthwise convolution, affine).

    Attributes:
        codes: int64 [phases, channels, taps].
        element: their type.
    """

    codes: Array
    element: IntType

    def __post_init__(self) -> None:
        if self.codes.ndim != 3 or not self.element.range.contains(self.range):
            raise ValueError(f"the weights are not [phases, channels, taps] of {self.element}")

    @property
    def range(self) -> Range:
        return Range(int(self.codes.min()), int(self.codes.max()))

    @property
    def shape(self) -> tuple[int, int]:
        """Phases and taps."""
        return int(self.codes.shape[0]), int(self.codes.shape[2])

    @property
    def table(self) -> Array:
        """int64 [phases, channels, taps]."""
        return self.codes


@dataclass(frozen=True, slots=True)
class TapWeights:
    """Weights that depend on the position only, as a factor for each axis (average, resize).

    Tap (ky, kx) of a pixel of phases (py, px) has weight rows[py][ky] * columns[px][kx].
    """

    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for axis in (self.rows, self.columns):
            if len({len(phase) for phase in axis}) != 1 or not axis[0]:
                raise ValueError("every phase of an axis has the same number of taps")

    @property
    def range(self) -> Range:
        return Range(int(self.table.min()), int(self.table.max()))

    @property
    def shape(self) -> tuple[int, int]:
        """Phases and taps."""
        return (
            len(self.rows) * len(self.columns),
            len(self.rows[0]) * len(self.columns[0]),
        )

    @property
    def table(self) -> Array:
        """int64 [phases, 1, taps]."""
        rows, columns = (np.array(axis, dtype=np.int64) for axis in (self.rows, self.columns))
        weights = rows[:, None, :, None] * columns[None, :, None, :]
        return weights.reshape(self.shape[0], 1, self.shape[1])


def axis_type(axis: tuple[tuple[int, ...], ...]) -> IntType:
    """The smallest type of the factors of an axis."""
    values = [weight for phase in axis for weight in phase]
    return IntType.holding(Range(min(values), max(values)))
