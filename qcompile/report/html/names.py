"""Node names as people read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def plain(name: str) -> str:
    """A name without characters that do not print."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)


def short_names(names: Sequence[str], operators: Sequence[str]) -> list[str]:
    """The names without what they say twice, as long as they stay different.

    '/enc.0/enc.0.3/Conv' of a Conv becomes 'enc.0.3': exporters repeat the path of the module and
    end with the operator.

    Args:
        names: of the layers.
        operators: of the same layers, such as 'Conv'.
    """
    found = [_short(name, operator) for name, operator in zip(names, operators, strict=True)]
    counts = Counter(found)
    return [
        short if counts[short] == 1 and short else plain(name)
        for short, name in zip(found, names, strict=True)
    ]


_MODULES = ("Conv", "ConvTranspose", "MatMul")
"""Operators that are modules of their own in frameworks; others name what a module does."""


def _short(name: str, operator: str) -> str:
    parts = [part for part in plain(name).split("/") if part]
    if (
        len(parts) > 1
        and operator in _MODULES
        and re.fullmatch(rf"{re.escape(operator)}(_\d+)?", parts[-1])
    ):
        parts.pop()
    kept: list[str] = []
    for part in parts:
        if kept and part.startswith(kept[-1] + "."):
            kept.pop()
        kept.append(part)
    return "/".join(kept)
