"""Energy counters of the processor, where the operating system lets us read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
"""Linux: RAPL of Intel and AMD processors. Most systems let only root read the counters."""
PACKAGE = "package"


@dataclass(frozen=True, slots=True)
class Counter:
    """The counter of one processor package, in microjoules; it starts again at `span`."""

    path: Path
    span: int

    def read(self) -> int:
        """Microjoules so far.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no number.
        """
        return int((self.path / "energy_uj").read_text())


def find_counters(root: Path = POWERCAP) -> tuple[Counter, ...]:
    """The counters of all packages that can be read; none where there is no such thing."""
    found = []
    for path in sorted(root.glob("*:*")) if root.is_dir() else []:
        try:
            if not (path / "name").read_text().startswith(PACKAGE):
                continue
            counter = Counter(path, int((path / "max_energy_range_uj").read_text()))
            counter.read()
        except (OSError, ValueError):
            continue
        found.append(counter)
    return tuple(found)


def spent(counters: Sequence[Counter], before: Sequence[int], after: Sequence[int]) -> int:
    """Microjoules between two readings of all counters, of which each may have started again
    once."""
    pairs = zip(counters, before, after, strict=True)
    return sum(now - then + (counter.span if now < then else 0) for counter, then, now in pairs)
