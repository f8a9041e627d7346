"""What multiplies two computed matrices: 16-bit dot products in vectors, or portable loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.levels import Level
from qcompile.backends.c.multiversion import RECOMPILED
from qcompile.backends.c.program import Kernel, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import ROW_BLOCK, round_up
from qcompile.ops import BatchMatMul, SumOp
from qcompile.passes.choose_kernels import KernelChoice

CHUNK = 64
"""Columns of which sums are held before the epilogue takes them."""


def matrix_levels(levels: Sequence[Level]) -> list[Level | None]:
    """Portable C, and those of `levels` that matrices are multiplied with."""
    return [None, *(level for level in levels if level in RECOMPILED)]


@dataclass(frozen=True)
class Products:
    """The kernels of one product at one level.

    Attributes:
        op: the operator, of integers.
        choice: its types.
        finish: its portable epilogue.
        level: the instruction set, None for portable C.
    """

    op: BatchMatMul
    choice: KernelChoice
    finish: Kernel
    level: Level | None

    @property
    def pairs(self) -> bool:
        """Whether an instruction takes two products of 16 bits, for columns side by side."""
        short = self.choice.line == "int16_t" and self.choice.sums == "int32_t"
        return self.level is not None and short

    @property
    def block(self) -> int:
        """Columns are computed in multiples of this."""
        if self.level is None or not self.pairs:
            return ROW_BLOCK
        return self.level.value.vector_bytes // 4

    def columns(self, count: int) -> int:
        """Columns that are computed where there are `count`."""
        return round_up(count, self.block)

    def pack(self, ctype: str) -> Kernel:
        """The kernel that widens the columns of a matrix of `ctype`."""
        lanes = self.block if self.pairs else 0
        line = self.choice.line
        types = [ctype] if line == "int16_t" else [ctype, line]
        suffix = f"_by_{lanes}" if lanes else ""
        item = kernel("pack_columns", types, suffix=suffix, x=ctype, line=line, lanes=lanes)
        return item.at(self.level)

    @property
    def dot(self) -> Kernel:
        """The kernel that multiplies rows by packed columns."""
        if self.pairs:
            return kernel("dot_tile_x86").at(self.level)
        types = [self.choice.line, self.choice.sums]
        return kernel("dot_tile", types, line=types[0], sums=types[1]).at(self.level)

    @property
    def epilogue(self) -> Kernel:
        """The kernel that turns rows of sums into codes."""
        return epilogue_at(self.level, self.finish, self.op)


def epilogue_at(level: Level | None, finish: Kernel, op: SumOp) -> Kernel:
    """The epilogue `finish` of `op`, for sums of its accumulator, at `level`."""
    if level is None or op.accumulator is None:
        return finish.at(level)
    reach = op.accumulator.range
    return level_epilogue(finish, level, op, (np.array([reach.low]), np.array([reach.high])))
