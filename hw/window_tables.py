"""The constants that a window steps through: pointer distances, needs and releases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import unsigned
from amaranth.lib import data

from qcompile.hw.axis import AxisPattern
from qcompile.hw.raster_walk import RasterWalk


@dataclass(frozen=True)
class WindowTables:
    """Tables of a window over pixels of `groups * words` words in a buffer of `depth` words.

    All distances lead from the word that ends a loop to the next one, modulo the depth.
    """

    walk: RasterWalk
    groups: int
    words: int
    depth: int

    @property
    def _pixel(self) -> int:
        return self.groups * self.words

    @property
    def _line(self) -> int:
        return self._pixel * self.walk.width

    @property
    def _reach(self) -> int:
        """From the first tap to the last."""
        rows, columns = self.walk.rows, self.walk.columns
        across = (columns.taps - 1) * columns.step * self._pixel
        return (rows.taps - 1) * rows.step * self._line + across

    @property
    def start(self) -> int:
        """Address of the first word."""
        base = self.walk.rows.base[0] * self._line + self.walk.columns.base[0] * self._pixel
        return base % self.depth

    @property
    def column_tap(self) -> int:
        return (self.walk.columns.step * self._pixel - self.words + 1) % self.depth

    @property
    def row_tap(self) -> int:
        columns = self.walk.columns
        back = (columns.taps - 1) * columns.step * self._pixel + self.words - 1
        return (self.walk.rows.step * self._line - back) % self.depth

    @property
    def fold(self) -> int:
        return -(self._reach + self.words - 1) % self.depth

    @property
    def group(self) -> int:
        return (1 - self._reach) % self.depth

    def _pixel_jump(self, rows: int, columns: int) -> int:
        distance = rows * self._line + columns * self._pixel
        return (distance - self._reach - self._pixel + 1) % self.depth

    @cached_property
    def _column_entries(self) -> list[dict[str, int]]:
        columns = self.walk.columns
        _, needs = self.walk.need_steps
        _, releases = self.walk.release_steps
        entries = []
        for x, base in enumerate(columns.base):
            last = x == columns.positions - 1
            entries.append(
                {
                    "mask": _mask(columns, x),
                    "phase": columns.phase[x],
                    "jump": 0 if last else self._pixel_jump(0, columns.base[x + 1] - base),
                    "need": 0 if last else int(needs[x + 1]),
                    "release": int(releases[x]),
                    "last": int(last),
                }
            )
        return entries

    @cached_property
    def _row_entries(self) -> list[dict[str, int]]:
        rows, columns = self.walk.rows, self.walk.columns
        needs, _ = self.walk.need_steps
        releases, _ = self.walk.release_steps
        bases = (*rows.base, rows.base[0] + rows.size)
        back = columns.base[0] - columns.base[-1]
        return [
            {
                "mask": _mask(rows, y),
                "phase": rows.phase[y],
                "jump": self._pixel_jump(bases[y + 1] - bases[y], back),
                "need": int(needs[(y + 1) % rows.positions]),
                "release": int(releases[y]),
                "acquiring": int(self.walk.acquiring[y]),
                "releasing": int(self.walk.releasing[y]),
            }
            for y in range(rows.positions)
        ]

    @cached_property
    def column_layout(self) -> data.StructLayout:
        return _layout(self._column_entries, self.walk.columns, self.depth, ("last",))

    @cached_property
    def row_layout(self) -> data.StructLayout:
        return _layout(self._row_entries, self.walk.rows, self.depth, ("acquiring", "releasing"))

    @cached_property
    def column_words(self) -> tuple[int, ...]:
        """One word of `column_layout` for each output column: what it reads, and what follows."""
        return tuple(_pack(self.column_layout, entry) for entry in self._column_entries)

    @cached_property
    def row_words(self) -> tuple[int, ...]:
        return tuple(_pack(self.row_layout, entry) for entry in self._row_entries)


def _mask(pattern: AxisPattern, position: int) -> int:
    return sum(1 << k for k, inside in enumerate(pattern.valid(position)) if inside)


def _layout(
    entries: list[dict[str, int]], pattern: AxisPattern, depth: int, flags: tuple[str, ...]
) -> data.StructLayout:
    widths = {
        "mask": pattern.taps,
        "phase": max(pattern.phase).bit_length(),
        "jump": (depth - 1).bit_length(),
        "need": max(entry["need"] for entry in entries).bit_length(),
        "release": max(entry["release"] for entry in entries).bit_length(),
    }
    return data.StructLayout(
        {name: unsigned(width) for name, width in widths.items()} | dict.fromkeys(flags, 1)
    )


def _pack(layout: data.StructLayout, entry: dict[str, int]) -> int:
    return sum(value << layout[name].offset for name, value in entry.items())
