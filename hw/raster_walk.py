"""What a raster of output pixels needs of a raster of input pixels, and when it lets go of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from qcompile.hw.axis import AxisPattern
from qcompile.types import Array


@dataclass(frozen=True)
class RasterWalk:
    """The order in which output pixels come to need input pixels, and the order of release.

    Input pixels are numbered in raster order, frame after frame. Output pixel (y, x) can be
    computed when `needed[y, x]` input pixels have arrived, one of its frame in any case; while it
    is computed, the first `released[y, x]` input pixels are no longer needed. Neither ever falls,
    from frame to frame either (both grow by the input pixels of a frame). Both are sums of a part
    of the row and a part of the column, which counts only in some rows, so that they can be stepped
    through:

        needed   = row_needed[y]   * width + (column_needed[x]   if acquiring[y] else the last one)
        released = row_released[y] * width + (column_released[x] if releasing[y] else the first one)

    Padding rows above the first row of the input need its first pixel.
    """

    rows: AxisPattern
    columns: AxisPattern

    @property
    def width(self) -> int:
        return self.columns.size

    @property
    def pixels(self) -> int:
        """Input pixels of a frame."""
        return self.rows.size * self.columns.size

    @cached_property
    def row_needed(self) -> Array:
        """Rows below this one must be complete; -1 before anything is needed."""
        return np.maximum.accumulate(np.array(self.rows.highest(), dtype=np.int64))

    @cached_property
    def acquiring(self) -> Array:
        """Whether an output row needs a row that no earlier one did."""
        return np.diff(self.row_needed, prepend=-1) > 0

    @cached_property
    def column_needed(self) -> Array:
        """Pixels of the last row that is needed; the first one always is."""
        highest = np.maximum.accumulate(np.array(self.columns.highest(), dtype=np.int64))
        return np.maximum(highest, 0) + 1

    @cached_property
    def row_released(self) -> Array:
        """The lowest row that is needed now or later."""
        return np.array(self.rows.lowest(), dtype=np.int64)

    @cached_property
    def releasing(self) -> Array:
        """Whether an output row is the last one to read `row_released`."""
        later = np.append(self.row_released[1:], self.rows.size)
        return self.row_released < later

    @cached_property
    def column_released(self) -> Array:
        return np.array(self.columns.lowest(), dtype=np.int64)

    @cached_property
    def needed(self) -> Array:
        """int64 [output rows, output columns]."""
        columns = np.where(
            self.acquiring[:, None], self.column_needed[None, :], self.column_needed[-1]
        )
        needed: Array = np.maximum(self.row_needed[:, None] * self.width + columns, 1)
        return needed

    @cached_property
    def released(self) -> Array:
        """int64 [output rows, output columns]."""
        columns = np.where(
            self.releasing[:, None], self.column_released[None, :], self.column_released[0]
        )
        return self.row_released[:, None] * self.width + columns

    @cached_property
    def span(self) -> int:
        """Most pixels that are needed at once: below this the walk cannot go on."""
        return max(1, int((self.needed - self.released).max()))

    @cached_property
    def need_steps(self) -> tuple[Array, Array]:
        """Growth of `needed` into each output row, and within a row that acquires into each column.

        That into row 0 comes from the frame before.
        """
        before = np.append(self.needed[-1, -1] - self.pixels, self.needed[:-1, -1])
        rows = self.needed[:, 0] - before
        return rows, np.diff(self.column_needed, prepend=self.column_needed[0])

    @cached_property
    def release_steps(self) -> tuple[Array, Array]:
        """Growth of `released` after each output row, and within a row that releases after each
        column (none after the last one)."""
        after = np.append(self.released[1:, 0], self.pixels + self.released[0, 0])
        rows = after - self.released[:, -1]
        return rows, np.diff(self.column_released, append=self.column_released[-1])


@lru_cache(maxsize=256)
def raster_walk(rows: AxisPattern, columns: AxisPattern) -> RasterWalk:
    """The walk of two patterns; kept, since foldings of one operator share it."""
    return RasterWalk(rows, columns)
