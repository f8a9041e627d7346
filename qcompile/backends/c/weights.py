"""Weights of one layer: packed constants, and the calls that unpack them into the arena.

Two orders exist. *Rows*: matrices of rows x length, one after the other. *Tiles*, for layers that
SIMD kernels can read: blocks of 16 rows (filters); in a block, for each 4 neighbouring positions of
a segment, the rows; for each row its 4 codes. A dot-product instruction multiplies 4 codes of each
of 4, 8 or 16 rows, so its operand lies in one piece at every vector width.

    rows      f0: k0 k1 k2 k3 k4 ...   f1: k0 k1 ...
    tiles     f0: k0..k3   f1: k0..k3   ...   f15: k0..k3   f0: k4..k7   ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.program import Kernel, Role, Step, Variant, kernel
from qcompile.packing import Packed, Packing, pack_weights
from qcompile.types import INDEXED, Array

ROW_BLOCK = 4
"""Output channels that the dot-product kernel computes together."""
WORD_BYTES = 4
TILE_ROWS, TILE_DEPTH = 16, 4
"""Rows of a block of tiles, and the codes of one row that lie side by side in it."""
FEW_WEIGHTS = 256
"""Weights of a layer that may be stored with a bit more each, for a SIMD kernel."""
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
    segment: int = 0
    """Tiles: a row consists of segments of this length; 0 for the order by rows."""

    @property
    def unpacked(self) -> int:
        """Elements after padding rows and lengths with zeros."""
        return self.groups * round_up(self.rows, ROW_BLOCK) * round_up(self.length, LENGTH_BLOCK)

    @property
    def tiled(self) -> int:
        """Elements of a row in tiles, segments padded."""
        return self.length // self.segment * round_up(self.segment, TILE_DEPTH)


@dataclass(frozen=True)
class PackedTable:
    """The constant that holds a layer's weights.

    Attributes:
        name: the table's C name.
        packed: how its codes are stored.
        levels: name and C type of the table of values, for `Packing.TABLE`.
    """

    name: str
    packed: Packed
    levels: tuple[str, str] | None = None

    @property
    def arguments(self) -> str:
        """What every unpacking kernel takes first."""
        text = self.name
        if self.packed.packing is not Packing.BASE3:
            text += f", {self.packed.bits}"
        return f"{text}, {self.levels[0]}" if self.levels else text


def tiles(codes: Array, segment: int) -> Array:
    """Codes [rows, segments * segment] in tile order, padded with zeros (1-D)."""
    rows, length = codes.shape
    if length == 0:
        return codes.reshape(-1)
    split = codes.reshape(rows, length // segment, segment)
    padded = round_up(segment, TILE_DEPTH)
    wide = np.zeros((rows, length // segment, padded), codes.dtype)
    wide[:, :, :segment] = split
    dwords = wide.reshape(rows, -1, TILE_DEPTH)
    blocks = [
        dwords[start : start + TILE_ROWS].transpose(1, 0, 2).reshape(-1)
        for start in range(0, rows, TILE_ROWS)
    ]
    return np.concatenate(blocks)


def can_tile(context: Context, value: str, segment: int) -> bool:
    """Padding needs a code for zero, which tables of values and binary weights may not have; it
    makes codes of a few weights longer, but not of many."""
    codes, book = context.graph.constants[value], context.type(value).codebook
    indexed = book is not None and book.kind in INDEXED
    whole = segment % TILE_DEPTH == 0 or not indexed or bool((codes == 0).any())
    return whole or codes.size <= FEW_WEIGHTS


def pack_table(context: Context, step: Step, value: str, codes: Array) -> PackedTable:
    """Adds the weights `codes` (1-D, in the order the kernels read them) of constant `value`."""
    packed = pack_weights(codes, context.type(value), context.ternary)
    data = np.frombuffer(packed.data, np.uint8)
    ctype = "uint8_t"
    note = f"{packed.count} ternary weights, five in a byte"
    if packed.packing is not Packing.BASE3:
        # Words instead of bytes: compilers read the table four times as fast.
        missing = -len(packed.data) % WORD_BYTES
        data, ctype = np.frombuffer(packed.data + bytes(missing), "<u4"), "uint32_t"
        note = f"{packed.count} weights, {packed.bits} bits each"
    table = step.table("weights", ctype, data, Role.WEIGHTS, note)
    levels = None
    if packed.packing is Packing.TABLE:
        # Powers of two of 7 bits reach 2**31.
        level = "int32_t" if np.abs(packed.table).max() < 1 << 31 else "int64_t"
        name = step.table("levels", level, packed.table, Role.TABLE, "value of each code")
        levels = (name, level)
    return PackedTable(table, packed, levels)


def tile_table(context: Context, step: Step, value: str, blocks: Sequence[Block]) -> PackedTable:
    """Adds a weight tensor in tile order, for kernels that read the packed codes."""
    parts = [
        tiles(block.codes.reshape(block.rows, block.length), block.segment) for block in blocks
    ]
    return pack_table(context, step, value, np.concatenate(parts))


def plan_tiles(
    context: Context,
    step: Step,
    portable: Variant,
    value: str,
    line: str,
    blocks: Sequence[Block],
) -> PackedTable:
    """Adds a weight tensor in tile order, and the portable unpacking of it into rows.

    Args:
        context: the graph.
        step: where the table goes.
        portable: where the rows (`weights`) and the call that fills them go.
        value: the constant.
        line: C type of the unpacked weights.
        blocks: the tensor cut into matrices of one group, each with its segment.
    """
    table = tile_table(context, step, value, blocks)
    portable.scratch(line, "weights", sum(block.unpacked for block in blocks))
    function = portable.use(unpack_kernel(table, line, scaled=False, tiled=True))
    first = offset = 0
    for block in blocks:
        if block.length:
            place = "weights" if offset == 0 else f"weights + {offset}"
            portable.calls.append(
                f"{function}({table.arguments}, {first}, {block.rows}, "
                f"{block.length // block.segment}, {block.segment}, {place});"
            )
        first += block.rows * block.tiled
        offset += block.unpacked
    return table


def plan_rows(
    context: Context,
    step: Step,
    portable: Variant,
    value: str,
    line: str,
    blocks: Sequence[Block],
    scale_axis: str,
) -> PackedTable | None:
    """Adds a weight tensor in the order of rows, and its unpacking into scratch `weights`.

    Args:
        context: the graph.
        step: where the table goes.
        portable: where the unpacked weights and the calls that fill them go.
        value: the constant (its type and codebook decide the packing).
        line: C type of the unpacked weights.
        blocks: the whole tensor cut into matrices, in the order the kernel reads them.
        scale_axis: 'row' or 'column': along which the channels of a float kernel's scales run.

    Returns:
        The table; None for weights that are floats.
    """
    codes = np.concatenate([block.codes.reshape(-1) for block in blocks])
    kind = context.type(value)
    portable.scratch(line, "weights", sum(block.unpacked for block in blocks))
    scaled = line == "float" and not kind.is_float
    per_code = ""
    table = None
    if kind.is_float:
        arguments = step.table("weights", "float", codes.astype(np.float32), Role.WEIGHTS)
        function = portable.use(kernel("unpack_float"))
    else:
        table = pack_table(context, step, value, codes)
        function = portable.use(unpack_kernel(table, line, scaled, tiled=False))
        arguments = table.arguments
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
        portable.calls.append(
            f"{function}({arguments}{per_code}, {first}, {block.groups}, {block.rows}, "
            f"{block.length}, {place});"
        )
        first += block.codes.size
        offset += block.unpacked
    return table


def unpack_kernel(table: PackedTable, line: str, scaled: bool, tiled: bool) -> Kernel:
    """The portable kernel that unpacks `table`."""
    level_type = table.levels[1] if table.levels else "int32_t"
    suffix = "_tiles" if tiled else ""
    return kernel(
        f"unpack_{table.packed.packing.value}",
        [line],
        suffix=suffix + ("_wide" if level_type == "int64_t" else ""),
        type=line,
        scaled=scaled,
        tiled=tiled,
        level_type=level_type,
    )


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
