"""Clock cycles of a sliding window, pixel by pixel, without simulating its hardware."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from qcompile.hw.axis_sequencer import segments
from qcompile.hw.raster_walk import RasterWalk

FRAMES = 3
"""Frames that are gone through; the last one counts."""

_State = tuple[tuple[int, int], ...]
_Row = tuple[int, bool, int, bool]


@lru_cache(maxsize=1024)
def frame_cycles(
    walk: RasterWalk, pixels: int, write_cycles: int, read_cycles: int, release_latency: int
) -> int:
    """Cycles from frame to frame when neither neighbour ever waits.

    Args:
        walk: what is needed and released when.
        pixels: room for input pixels.
        write_cycles: cycles that the arrival of an input pixel takes.
        read_cycles: cycles that an output pixel takes.
        release_latency: cycles from reading a pixel for the last time to room for another one.
    """
    row_needs, row_releases = walk.need_steps[0].tolist(), walk.release_steps[0].tolist()
    rows: list[_Row] = list(
        zip(row_needs, walk.acquiring.tolist(), row_releases, walk.releasing.tolist(), strict=True)
    )
    kinds = list(dict.fromkeys(rows))
    parts = segments([kinds.index(row) for row in rows])
    play = _Play(walk, pixels, write_cycles, read_cycles, release_latency)
    play.need = int(walk.needed[0, 0]) - row_needs[0]
    ends = []
    for _ in range(FRAMES):
        for part in parts:
            seen: dict[_State, tuple[int, int]] = {}
            left = part.repeats
            while left:
                for kind in part.words:
                    play.row(kinds[kind])
                left -= 1
                if left == 0:
                    break
                # Once a state comes back, so does all that follows: skip whole rounds of it.
                state = play.state()
                if state in seen:
                    before, time = seen[state]
                    rounds, left = divmod(left, before - left)
                    play.skipped += rounds * (play.now - time)
                    seen = {}
                else:
                    seen[state] = (left, play.now)
        ends.append(play.now + play.skipped)
    return ends[-1] - ends[-2]


class _Play:
    """Writer and reader of the buffer; all counts are of input pixels, all times of cycles."""

    def __init__(
        self,
        walk: RasterWalk,
        pixels: int,
        write_cycles: int,
        read_cycles: int,
        release_latency: int,
    ) -> None:
        self.now = -1  # last cycle of the last output pixel
        self.skipped = 0  # cycles of rows that were not gone through
        self.need = 0
        self.written = 0
        self.write_end = -1  # last cycle of the last input pixel
        self.room = pixels + int(walk.released[0, 0])  # input pixels that may have been written
        self.pending: deque[tuple[int, int]] = deque()  # cycle and value of `room` from then on
        self.last_room = self.room
        self.write_cycles = write_cycles
        self.read_cycles = read_cycles
        self.release_latency = release_latency
        self.needs = walk.need_steps[1].tolist()
        self.releases = walk.release_steps[1].tolist()

    def row(self, kind: _Row) -> None:
        """One output row."""
        row_need, acquiring, row_release, releasing = kind
        last = len(self.needs) - 1
        self.need += row_need
        for x in range(last + 1):
            if x and acquiring:
                self.need += self.needs[x]
            self._write()
            self.now = max(self.now, self.write_end) + self.read_cycles
            release = row_release if x == last else self.releases[x] if releasing else 0
            if release:
                self.last_room += release
                self.pending.append((self.now + self.release_latency, self.last_room))

    def _write(self) -> None:
        """As many input pixels as are needed by now, as early as there was room for them."""
        while self.written < self.need:
            count = min(self.need, self.room) - self.written
            if count > 0:
                self.written += count
                self.write_end += count * self.write_cycles
            else:
                time, self.room = self.pending.popleft()
                self.write_end = max(self.write_end, time - 1)

    def state(self) -> _State:
        """All that the future depends on, relative to the present."""
        rooms = {0: self.room - self.written}
        for time, room in self.pending:
            rooms[max(time - self.write_end - 1, 0)] = room - self.written
        return ((self.write_end - self.now, self.need - self.written), *rooms.items())
