"""What one operation and one access to memory cost: the table behind the analytical energy.

name = "45 nm, 0.9 V"
[integer]              pJ of one operation, by bits
add = { 8 = 0.03, 32 = 0.1 }
multiply = { 8 = 0.2, 32 = 3.1 }
[float32]
add = 0.9
multiply = 3.7
[[memory]]             pJ of 64 bits; the last one holds everything
bytes = 8192
access = 10
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from qcompile.errors import UsageError

MAX_BYTES = 1 << 20
ACCESS_BITS = 64
_KEYS = ("name", "integer", "float32", "memory")


@dataclass(frozen=True, slots=True)
class Memory:
    """One level of memory: pJ of an access of 64 bits; None bytes: as large as need be."""

    access: float
    bytes: int | None = None

    @property
    def name(self) -> str:
        """'8 KiB', 'DRAM'."""
        if self.bytes is None:
            return "DRAM"
        return f"{self.bytes / 1024:g} KiB" if self.bytes < 1 << 20 else f"{self.bytes >> 20} MiB"


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """pJ of operations.

    Attributes:
        name: process and source, for the report.
        add: (bits, pJ) of integer additions, by rising bits.
        multiply: likewise of products of two factors of so many bits.
        float_add: of float32.
        float_multiply: of float32.
        memory: levels by rising size.
    """

    name: str
    add: tuple[tuple[int, float], ...]
    multiply: tuple[tuple[int, float], ...]
    float_add: float
    float_multiply: float
    memory: tuple[Memory, ...]

    def add_energy(self, bits: int) -> float:
        """Of an integer addition: linear in the bits between the entries, from 0 at 0 bits on;
        beyond the last entry as between the last two."""
        return _between(tuple((float(at), cost) for at, cost in self.add), bits)

    def multiply_energy(self, left: int, right: int) -> float:
        """Of an integer product: likewise, in the product of both widths (the cells of an array
        multiplier)."""
        return _between(tuple((float(at * at), cost) for at, cost in self.multiply), left * right)

    def memory_for(self, size: int) -> Memory:
        """The smallest level that holds `size` bytes."""
        for level in self.memory:
            if level.bytes is None or size <= level.bytes:
                return level
        return self.memory[-1]


def _between(points: tuple[tuple[float, float], ...], at: float) -> float:
    known = ((0.0, 0.0), *points)
    for (low, low_cost), (high, high_cost) in pairwise(known):
        if at <= high or high == known[-1][0]:
            return low_cost + (high_cost - low_cost) * (at - low) / (high - low)
    raise AssertionError("a table has an entry")


HOROWITZ = EnergyTable(
    "45 nm, 0.9 V (M. Horowitz, ISSCC 2014)",
    add=((8, 0.03), (32, 0.1)),
    multiply=((8, 0.2), (32, 3.1)),
    float_add=0.9,
    float_multiply=3.7,
    memory=(
        Memory(10.0, 8 << 10),
        Memory(20.0, 32 << 10),
        Memory(100.0, 1 << 20),
        Memory(1300.0),
    ),
)
"""M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure
1.1.9. DRAM is given as 1.3 to 2.6 nJ; the lower end is taken."""


def read_energy_table(path: Path) -> EnergyTable:
    """A table from a TOML file.

    Raises:
        UsageError: the file cannot be read, or is no such table.
    """
    where = f"--energy-table {path}"
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{where}: is not a regular file; give a TOML file")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{where}: larger than {MAX_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: is not valid TOML ({error})") from None
    unknown = sorted(set(document) - set(_KEYS))
    missing = [key for key in _KEYS if key not in document]
    if unknown or missing:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{unknown[0]}' is unknown"
        raise UsageError(f"{where}: {wrong}; a table has {', '.join(_KEYS)}")
    name = document["name"]
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise UsageError(f"{where}: name must be a line of text")
    integer = _table(document["integer"], ("add", "multiply"), f"{where} [integer]")
    floats = _table(document["float32"], ("add", "multiply"), f"{where} [float32]")
    return EnergyTable(
        name,
        _widths(integer["add"], f"{where} [integer] add"),
        _widths(integer["multiply"], f"{where} [integer] multiply"),
        _cost(floats["add"], f"{where} [float32] add"),
        _cost(floats["multiply"], f"{where} [float32] multiply"),
        _memory(document["memory"], f"{where} [[memory]]"),
    )


def _table(value: Any, keys: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise UsageError(f"{where}: must be a table with {' and '.join(keys)}")
    return value


def _cost(value: Any, where: str) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or not 0 <= value <= 1e9:
        raise UsageError(f"{where}: {value!r} is no energy; use pJ from 0 to 1e9")
    return float(value)


def _widths(value: Any, where: str) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{where}: must be a table of bits = pJ, such as {{ 8 = 0.2, 32 = 3.1 }}")
    found = []
    for bits, cost in value.items():
        if not bits.isascii() or not bits.isdigit() or not 1 <= int(bits) <= 64:
            raise UsageError(f"{where}: '{bits}' is no number of bits; use 1 to 64")
        found.append((int(bits), _cost(cost, f"{where} {bits}")))
    found.sort()
    if len({bits for bits, _ in found}) < len(found):
        raise UsageError(f"{where}: the same bits are given twice")
    if any(high < low for (_, low), (_, high) in pairwise(found)):
        raise UsageError(f"{where}: more bits must not cost less")
    return tuple(found)


def _memory(value: Any, where: str) -> tuple[Memory, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise UsageError(f"{where}: must be tables with bytes and access")
    levels: list[Memory] = []
    for number, item in enumerate(value):
        last = number == len(value) - 1
        if set(item) != ({"access"} if last else {"access", "bytes"}):
            rule = "the last has access alone" if last else "each but the last has bytes and access"
            raise UsageError(f"{where} {number + 1}: {rule}")
        size = item.get("bytes")
        before = levels[-1].bytes if levels else 0
        if not last and (
            not isinstance(size, int) or isinstance(size, bool) or size <= (before or 0)
        ):
            raise UsageError(f"{where} {number + 1}: bytes must be whole numbers that rise")
        levels.append(Memory(_cost(item["access"], f"{where} {number + 1} access"), size))
    return tuple(levels)
