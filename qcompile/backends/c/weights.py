"""Weights of one layer: packed constants, and the calls that unpack them into the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.packing import Packing, pack_weights
from qcompile.types import Array

ROW_BLOCK = 4
"""Output channels that the dot-product kernel computes together."""
WORD_BYTES = 4
LENGTH_BLOCK = 8
"""Dot products have a multiple of this length: one 128-bit vector of int16."""


def round_up(value: int, multiple: int) -> int:
    """The next multiple that is not smaller."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Block:
    """`groups` matrices of `rows` x `length` weights that follow each other, in packing order."""

    codes: Array
    groups: int
    rows: int
    length: int

    @property
    def unpacked(self) -> int:
        """Elements after padding rows and lengths with zeros."""
        return self.groups * round_up(self.rows, ROW_BLOCK) * round_up(self.length, LENGTH_BLOCK)


def plan_weights(
    context: Context, step: Step, value: str, line: str, blocks: Sequence[Block], scale_axis: str
) -> int:
    """Adds the packed table of a weight tensor and its unpacking into scratch `weights`.

    Args:
        context: the graph.
        step: where to.
        value: the constant (its type and codebook decide the packing).
        line: C type of the unpacked weights.
        blocks: the whole tensor cut into matrices, in the order the kernel reads them.
        scale_axis: 'row' or 'column': along which the channels of a float kernel's scales run.

    Returns:
        How many elements `weights` has.
    """
    codes = np.concatenate([block.codes.reshape(-1) for block in blocks])
    kind = context.type(value)
    total = sum(block.unpacked for block in blocks)
    step.scratch(line, "weights", total)
    scaled = line == "float" and not kind.is_float
    per_code = ""
    if kind.is_float:
        table = step.table("weights", "float", codes.astype(np.float32), Role.WEIGHTS)
        function = step.use(kernel("unpack_float"))
        arguments = table
    else:
        packed = pack_weights(codes, kind, context.ternary)
        data = np.frombuffer(packed.data, np.uint8)
        ctype = "uint8_t"
        if packed.packing is not Packing.BASE3:
            # Words instead of bytes: compilers read the table four times as fast.
            missing = -len(packed.data) % WORD_BYTES
            data, ctype = np.frombuffer(packed.data + bytes(missing), "<u4"), "uint32_t"
        note = f"{packed.count} weights, {packed.bits} bits each"
        if packed.packing is Packing.BASE3:
            note = f"{packed.count} ternary weights, five in a byte"
        table = step.table("weights", ctype, data, Role.WEIGHTS, note)
        level, levels = "int32_t", ""
        if packed.packing is Packing.TABLE:
            # Powers of two of 7 bits reach 2**31.
            level = "int32_t" if np.abs(packed.table).max() < 1 << 31 else "int64_t"
            levels = step.table("levels", level, packed.table, Role.TABLE, "value of each code")
        function = step.use(
            kernel(
                f"unpack_{packed.packing.value}",
                [line],
                suffix="_wide" if level == "int64_t" else "",
                type=line,
                scaled=scaled,
                level=level,
            )
        )
        arguments = table if packed.packing is Packing.BASE3 else f"{table}, {packed.bits}"
        if packed.packing is Packing.TABLE:
            arguments += f", {levels}"
        if scaled:
            scales = (
                np.asarray(kind.quantization.scale, np.float32)
                if kind.quantization is not None
                else np.ones(1, np.float32)
            )
            name = step.table("scale", "float", scales, Role.EPILOGUE, "size of one weight step")
            per_code = f", {name}, {1 if scales.size > 1 and scale_axis == 'row' else 0}"
            per_code += f", {1 if scales.size > 1 and scale_axis == 'column' else 0}"
    first = offset = 0
    # Every call starts at the first scale, so matrices of several phases must not share one.
    for block in blocks if scaled else _joined(blocks):
        if block.codes.size == 0:
            continue
        place = "weights" if offset == 0 else f"weights + {offset}"
        step.calls.append(
            f"{function}({arguments}{per_code}, {first}, {block.groups}, {block.rows}, "
            f"{block.length}, {place});"
        )
        first += block.codes.size
        offset += block.unpacked
    return total


def _joined(blocks: Sequence[Block]) -> list[Block]:
    """Neighbouring blocks of one form become one."""
    result: list[Block] = []
    for block in blocks:
        if block.codes.size == 0:
            continue
        last = result[-1] if result else None
        if last is not None and (last.rows, last.length) == (block.rows, block.length):
            codes = np.concatenate([last.codes.reshape(-1), block.codes.reshape(-1)])
            result[-1] = Block(codes, last.groups + block.groups, block.rows, block.length)
        else:
            result.append(block)
    return result
