"""The instruction sets that one emitted file serves, besides portable C99.

x86-64 chooses once per run among the levels the processor has, and so does aarch64 where gcc
compiles for Linux; elsewhere the compiler's target decides. A level includes the ones below it in
its family.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Family(enum.Enum):
    """Levels that exclude each other at compile time; the value is the guarding macro."""

    X86 = "QCOMPILE_X86"
    NEON = "QCOMPILE_NEON"


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a level is.

    Attributes:
        family: which machines have it.
        rank: its number in the emitted C, ascending within the family; 0 is portable C.
        suffix: of the functions compiled for it.
        vector_bytes: how wide its kernels' vectors are.
        shown: what `<entry>_instructions()` calls it.
        guard: the macro that is defined where compilers know it.
    """

    family: Family
    rank: int
    suffix: str
    vector_bytes: int
    shown: str
    guard: str


class Level(enum.Enum):
    """The levels with kernels of their own."""

    AVX2 = Instructions(Family.X86, 1, "avx2", 32, "AVX2", "QCOMPILE_X86")
    VNNI = Instructions(Family.X86, 2, "vnni", 32, "AVX-512 VNNI, 256-bit vectors", "QCOMPILE_X86")
    VNNI512 = Instructions(
        Family.X86, 3, "vnni512", 64, "AVX-512 VNNI, 512-bit vectors", "QCOMPILE_X86"
    )
    NEON = Instructions(Family.NEON, 1, "neon", 16, "NEON", "QCOMPILE_NEON")
    DOT = Instructions(Family.NEON, 2, "dot", 16, "NEON with dot products", "QCOMPILE_DOT")

    @property
    def macro(self) -> str:
        """The constant of the emitted C that stands for the level."""
        return f"LEVEL_{self.name}"

    @property
    def target(self) -> str:
        """The macro of the emitted C that compiles a function for the level."""
        return f"TARGET_{self.name}"


X86_LEVELS = (Level.VNNI512, Level.VNNI, Level.AVX2)
NEON_LEVELS = (Level.DOT, Level.NEON)
ALL_LEVELS = (*X86_LEVELS, *NEON_LEVELS)
"""Best first within each family."""
