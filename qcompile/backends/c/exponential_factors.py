"""A table of exponentials as products of a few float factors, each from a table that fits a vector.

    powers[i] = round(a[i % 8] * b[i // 8 % 8] * ...)

Permuting lanes of a vector takes a fraction of the time of looking up memory. Products in float are
not exact, so every entry is compared with the table before the factors are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.levels import Level
from qcompile.types import Array

SCALE = 1 << 15
"""What powers[0] stands for."""
TRIES = 32
DIGITS: dict[Level, tuple[int, ...]] = {Level.AVX2: (8, 8, 8, 4), Level.VNNI512: (32, 64)}
"""Factors of each table, least significant first: their product is the longest table there is."""
LANES: dict[Level, int] = {Level.AVX2: 8, Level.VNNI512: 16}
SHORT = 1024
"""Up to so many entries the second table for 512 bits has half its length."""


def exponential_factors(powers: Array, level: Level) -> Array | None:
    """The tables of `level` one after the other, each padded to whole vectors: float32 [n].

    Args:
        powers: round(2**15 * exp(-i * step)), integers [n].
        level: one of `DIGITS`.

    Returns:
        Factors whose product, rounded to nearest after each multiplication in the order of the
        kernel, gives every entry; None if none were found.
    """
    digits = DIGITS[level]
    if powers.size > int(np.prod(digits)):
        return None
    steps = _steps(powers)
    if steps is None:
        return None
    random = np.random.default_rng(0)
    strides = [int(stride) for stride in np.cumprod((1, *digits[:-1]))]
    for attempt in range(TRIES):
        step = steps[0] + (steps[1] - steps[0]) * (0.5 if attempt == 0 else random.random())
        # Factors times numbers that cancel are rounded otherwise.
        gains = random.uniform(0.5, 1.0, len(digits)) if attempt else np.ones(len(digits))
        gains[-1] = SCALE / np.prod(gains[:-1])
        tables = [
            (gain * np.exp(-step * stride * np.arange(count))).astype(np.float32)
            for gain, stride, count in zip(gains, strides, digits, strict=True)
        ]
        if _repaired(tables, strides, powers):
            if level is Level.VNNI512 and powers.size <= SHORT:
                tables[1] = tables[1][: SHORT // digits[0]]
            return np.concatenate([_padded(table, LANES[level]) for table in tables])
    return None


def _repaired(tables: Sequence[Array], strides: Sequence[int], powers: Array) -> bool:
    """Moves factors by one unit in the last place, in place, while that makes more entries right;
    whether all are."""
    wrong = _wrong(tables, strides, powers)
    while wrong.size:
        for table, stride in zip(tables, strides, strict=True):
            place = wrong[0] // stride % table.size
            before = table[place]
            for limit in (0.0, np.inf):
                table[place] = np.nextafter(before, np.float32(limit))
                found = _wrong(tables, strides, powers)
                if found.size < wrong.size:
                    break
                table[place] = before
            if found.size < wrong.size:
                wrong = found
                break
        else:
            return False
    return True


def _wrong(tables: Sequence[Array], strides: Sequence[int], powers: Array) -> Array:
    """Which entries the products miss, multiplied and rounded as the kernels do."""
    index = np.arange(powers.size)
    pairs = zip(tables, strides, strict=True)
    parts = [table[index // stride % table.size] for table, stride in pairs]
    products = parts[0] * parts[1]
    if len(parts) == 4:
        products = products * (parts[2] * parts[3])
    return np.flatnonzero(np.rint(products).astype(np.int64) != powers)


def _steps(powers: Array) -> tuple[float, float] | None:
    """The least and the largest step that each entry is compatible with."""
    values, index = powers.astype(np.float64), np.arange(powers.size)
    if values[0] != SCALE:
        return None
    some = values[1:] > 0
    low = np.log(SCALE / (values[1:] + 0.5)) / index[1:]
    high = np.log(SCALE / (values[1:][some] - 0.5)) / index[1:][some]
    least = float(low.max(initial=0.0))
    # The largest may be unlimited: then all entries but the first are 0.
    most = float(high.min(initial=2.0 * least + 1.0))
    return (least, most) if least <= most else None


def _padded(table: Array, lanes: int) -> Array:
    return np.pad(table, (0, -table.size % lanes))
