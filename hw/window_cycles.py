"""Clock cycles of a sliding window, pixel by pixel, without simulating its hardware."""

from __future__ import annotations

from qcompile.hw.raster_walk import RasterWalk

FRAMES = 3


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
    needed = walk.needed.reshape(-1).tolist()
    released = walk.released.reshape(-1).tolist()
    written: list[int] = []  # cycle of the last word of each pixel
    room = pixels + released[0]
    now = -1
    ends = []
    freed = [(-10, room)]
    f = 0
    for frame in range(FRAMES):
        for p in range(len(needed)):
            need = needed[p] + frame * walk.pixels
            while len(written) < need:
                n = len(written)
                while freed[f][1] <= n:
                    f += 1
                start = max(written[-1] + 1 if written else 0, freed[f][0])
                written.append(start + write_cycles - 1)
            start = max(now + 1, written[need - 1] + 1 if need > 0 else 0)
            now = start + read_cycles - 1
            nxt = released[p + 1] if p + 1 < len(released) else walk.pixels + released[0]
            freed.append((now + release_latency, pixels + nxt + frame * walk.pixels))
        ends.append(now)
    return ends[-1] - ends[-2]
