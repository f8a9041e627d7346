"""Unique names."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out names that nobody has yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        """`base`, or `base.2`, `base.3` and so on."""
        name, count = base, self._counts.get(base, 1)
        while name in self._taken:
            count += 1
            name = f"{base}.{count}"
        self._counts[base] = count
        self._taken.add(name)
        return name
