"""Planner of convolutions of ternary or binary weights and activations in bit planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.epilogues import each_channel
from qcompile.backends.c.levels import Level
from qcompile.backends.c.multiversion import recompiled
from qcompile.backends.c.plane_codes import read_planes, write_planes
from qcompile.backends.c.program import Role, Step, Variant, kernel
from qcompile.backends.c.weights import Block, pack_table, plan_rows, round_up
from qcompile.numerics import Thresholds
from qcompile.ops import Conv, ConvTranspose
from qcompile.packing import TernaryPacking
from qcompile.passes.join_concats import MOST_PARTS
from qcompile.passes.place_planes import (
    BitPlanes,
    PlaneCodes,
    counter_bits,
    filters,
    plane_bytes,
    stripe,
)
from qcompile.types import Array, CodebookKind, Shape

PLANE_LEVELS = (Level.AVX2, Level.VNNI)
SUM_LIMIT = 1 << 20
"""Beyond every sum of these layers."""

IMAGE_BYTES = 256 * 1024
"""Laid out inputs of a band: they stay in the second-level cache."""
BAND_BYTES = 1024
"""Of one plane: bands are not lower than this, so that lists of weights are worth their making."""
MOST_LEVELS = 16
"""Bits of any count."""
TILE, FEWEST_ROWS = 32, 8
"""Columns of a tile of wide images, and rows of its bands, so that vectors are filled."""
LIST_BYTES = 48 * 1024
BLOCKS = (32, 64, 128)
"""Bytes of a plane that are counted together; small images leave wide vectors empty."""
CODES_IN_WORD = 16
LINES = 4
"""Threads at most that lay out inputs: each has rows of its own to work in."""


def plan_conv_planes(context: Context, step: Step, op: Conv | ConvTranspose) -> None:
    """Carry-save adders over the weights that are not zero, pixels in the bits of vectors."""
    transposed = isinstance(op, ConvTranspose)
    joined = context.joined.get(op.inputs[0])
    parts = joined.inputs if joined is not None else (op.inputs[0],)
    if joined is not None:
        step.notes.append(f"with {joined.label()}")
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    layouts = [context.planes.values[value] for value in parts]
    planes = 1 if all(layout.codes is PlaneCodes.UNIT for layout in layouts) else 2
    names = [read_planes(step, f"x{index}", value) for index, value in enumerate(parts)]
    y = write_planes(step, "y", op.output)
    weights = context.graph.constants[op.inputs[1]]
    # Filters of a transposed convolution: for each output channel the four of a 2 x 2 block.
    rows = filters(op, weights)
    grid = shape if transposed else out
    window = (
        Window()
        if transposed
        else Window(weights.shape[2:], op.strides, op.pads_begin, op.dilations)
    )
    bands = Bands(window, shape, grid, planes)
    longest = round_up(int(max((rows > 0).sum(1).max(), (rows < 0).sum(1).max())), 8)
    longest += CODES_IN_WORD  # of which vectors write all
    together = min(len(rows), max(4, LIST_BYTES // (4 * (2 * longest + 4)) // 4 * 4))
    limits = _limits(op, context.planes.values[op.output], out[1])
    described = step.shape(
        "planes_shape",
        "shape",
        channels=shape[1],
        size=shape[2:],
        stripe=stripe(shape),
        out_stripe=stripe(grid),
        tile=bands.tile,
        tiles=grid[3] // bands.tile,
        image_rows=bands.image_rows,
        plane_step=bands.plane_step,
        tile_step=bands.tile_step,
        band=bands.band,
        line_bytes=bands.line_bytes,
        kernel=window.kernel,
        stride=window.stride,
        pad=window.pad,
        dilation=window.dilation,
        filters=len(rows),
        together=together,
        longest=longest,
        levels=counter_bits(rows, planes) - planes - 2,
        limit_step=(limits.shape[1], 0 if limits.shape[1] == 1 else 1),
        part_channels=_padded([context.type(value).shape[1] for value in parts]),
        part_planes=_padded([layout.planes for layout in layouts]),
        part_signed=_padded([int(layout.codes is PlaneCodes.SIGN) for layout in layouts]),
    )
    table = step.table("limits", "int32_t", limits, Role.EPILOGUE, "of the sums, for each plane")
    portable = step.variant(None, "bit planes, carry-save adders")
    source, codes = _plan_codes(context, step, portable, op.inputs[1], rows)
    portable.scratch("uint8_t", "images", bands.size)
    portable.scratch("int32_t", "offsets", round_up(rows.shape[1], CODES_IN_WORD))
    portable.scratch("int32_t", "lists", together * (2 * longest + 4))
    portable.scratch("uint64_t", "masks", together * MOST_LEVELS * len(limits))
    portable.locals.append(f"const uint8_t *const parts[{len(names)}] = {{ {', '.join(names)} }};")
    gather = kernel(
        "gather_planes",
        requires=[kernel("plane_rows", shared=True), kernel("team", shared=True)],
        suffix=f"_{planes}_of_{len(parts)}",
        planes=planes,
        parts=len(parts),
        tile=TILE,
        lines=LINES,
    )
    lister = kernel("list_planes", suffix="_codes" if codes else "", codes=codes)
    block = next((size for size in BLOCKS if size >= plane_bytes(grid)), BLOCKS[-1])
    item = kernel(
        "conv_planes",
        requires=[gather, lister],
        suffix=f"_{planes}_to_{len(limits)}_{block}"
        + ("_up" if transposed else "")
        + f"_{gather.function}"
        f"{'_codes' if codes else ''}",
        planes=planes,
        outs=len(limits),
        block=block,
        transposed=transposed,
        codes=codes,
        gather=gather.function,
        lister=lister.function,
    )
    portable.calls.append(
        f"{portable.use(item)}({described}, parts, {source}, {table}, {y}, images, offsets, "
        "lists, masks);"
    )
    for level in PLANE_LEVELS:
        if level in context.levels:
            step.variants.append(recompiled(portable, level, step.op))


@dataclass(frozen=True)
class Window:
    """What one output position reads, as (vertical, horizontal) pairs; by default its own input."""

    kernel: Shape = (1, 1)
    stride: Shape = (1, 1)
    pad: Shape = (0, 0)
    dilation: Shape = (1, 1)


@dataclass(frozen=True)
class Bands:
    """How much is laid out at a time.

    Attributes:
        window: of the layer.
        shape: of the input.
        grid: of the output positions.
        planes: of each input channel.
    """

    window: Window
    shape: Shape
    grid: Shape
    planes: int

    @property
    def images(self) -> int:
        """Shifted copies of the input: one for each column of the kernel, and where rows are
        skipped for each row of it."""
        height, width = self.window.kernel
        return width * (1 if self.window.stride[0] == 1 else height)

    @property
    def halo(self) -> int:
        """Rows that a band has beside those of its outputs."""
        if self.window.stride[0] != 1:
            return 0
        return (self.window.kernel[0] - 1) * self.window.dilation[0]

    @property
    def tile(self) -> int:
        """Columns that lie together: vectors of few columns and several rows meet less input."""
        return TILE if self.window.stride[1] == 1 and self.grid[3] % TILE == 0 else self.grid[3]

    @property
    def band(self) -> int:
        """Rows of outputs."""
        row = (self.shape[1] + 1) * self.planes * self.images * self.grid[3]
        fitting = max(IMAGE_BYTES // row - self.halo, -(-BAND_BYTES // self.grid[3]), 1)
        rows = stripe(self.grid)
        if self.tile < self.grid[3]:
            fitting = max(fitting, FEWEST_ROWS)
        return -(-rows // -(-rows // fitting))

    @property
    def image_rows(self) -> int:
        return self.band + self.halo

    @property
    def plane_step(self) -> int:
        """Bytes from one plane to the next."""
        return self.images * self.image_rows * self.tile

    @property
    def tile_step(self) -> int:
        """Bytes from one tile to the next; a channel of zeros is behind the others."""
        return (self.shape[1] + 1) * self.planes * self.plane_step

    @property
    def line_bytes(self) -> int:
        """A row of the input, padded as far as any tap reaches."""
        reach = (self.window.kernel[1] - 1) * self.window.dilation[1]
        read = (self.grid[3] - 1) * self.window.stride[1] + reach + 1
        return max(read, self.window.pad[1] + self.shape[3])

    @property
    def size(self) -> int:
        """Bytes altogether: tiles, lines for each plane, what the last block reads too much."""
        tiles = self.grid[3] // self.tile
        return tiles * self.tile_step + LINES * self.planes * self.line_bytes + BLOCKS[-1]


def _limits(op: Conv | ConvTranspose, layout: BitPlanes, channels: int) -> Array:
    """For each plane the least sum that sets its bit: [planes, channels], or [planes, 1]."""
    epilogue = op.epilogue
    assert isinstance(epilogue, Thresholds)
    # The plane of code >= 1 comes first.
    chosen = list(reversed(epilogue.thresholds))[: layout.planes]
    flat = all(len(values) == 1 for values in chosen)
    limits = np.stack([each_channel(values, 1 if flat else channels) for values in chosen])
    return np.asarray(np.clip(limits, -SUM_LIMIT, SUM_LIMIT))


def _plan_codes(
    context: Context, step: Step, portable: Variant, value: str, rows: Array
) -> tuple[str, bool]:
    """Adds the weights `rows`; returns what kernels read, and whether that is codes in bytes."""
    if _is_two_bits(context, value):
        missing = -rows.shape[1] % CODES_IN_WORD
        padded = np.pad(rows, ((0, 0), (0, missing)))
        return pack_table(context, step, value, padded.reshape(-1)).name, False
    block = Block(rows, 1, *rows.shape)
    plan_rows(context, step, portable, value, "int8_t", [block], "row")
    return "weights", True


def _padded(values: Sequence[int]) -> list[int]:
    return [*values, *[0] * (MOST_PARTS - len(values))]


def _is_two_bits(context: Context, value: str) -> bool:
    codebook = context.type(value).codebook
    kind = codebook.kind if codebook is not None else CodebookKind.UNIFORM
    if kind is CodebookKind.TERNARY:
        return context.ternary is TernaryPacking.TWO_BITS
    return kind is CodebookKind.UNIFORM and context.type(value).integer.bits == 2
