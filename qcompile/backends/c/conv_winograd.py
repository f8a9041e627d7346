"""3x3 convolution by Winograd F(2x2,3x3): memory, kernels and the calls.

One driver (`conv_winograd.c.j2`) and for each instruction set kernels of the three transformations:

    input rows -> band -> transformed inputs, groups of tiles -+
    packed weights -> bytes -> transformed weights ------------+-> sums of 2x2 outputs -> epilogue

`winograd_ranges.py` says why that is exact, and where. Either all transformed weights stay in
memory and the inputs come band by band, or all transformed inputs stay and the weights come by
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_direct import constant, stream_kernel
from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.epilogues import constants_type
from qcompile.backends.c.followers import Follower, with_follower
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import TILE_ROWS, PackedTable, round_up
from qcompile.backends.c.winograd_ranges import (
    OFFSET,
    are_bytes,
    has_form,
    inputs_fit,
    offsets,
    pair_runs,
    start_values,
    sums_fit,
    transformed,
)
from qcompile.ops import SumOp
from qcompile.passes.kernel_costs import ConvShape, winograd_pays
from qcompile.types import Array, Range, TensorType

INPUT_BYTES = 264 << 10
"""Transformed inputs in the second-level cache, beside the weights."""
MOST_TEAMS = 4
"""Threads that compute bands of their own; each needs two more rows of pixels in memory."""
FEWEST_TILES = 2 * 96
"""Tiles, of two threads, that share the weights while these come from a cache further out."""
WEIGHT_BYTES = 512 << 10
"""Transformed weights in the cache where all inputs stay in memory."""
SUM_BYTES = 12 << 10
"""Sums of some groups of tiles in the first-level cache."""
CACHE_ALIAS = 4096
"""Rows this far apart would compete for the same lines of the first-level cache."""
CHUNK = 32
"""Channels of a vector of transformed inputs."""


@dataclass(frozen=True)
class Rows:
    """The kernel of the products.

    Attributes:
        tiles: of a group.
        vectors: of filters.
        filters: in these vectors.
        apart: one position after the other, instead of a row of four.
    """

    tiles: int
    vectors: int
    filters: int
    apart: bool = False

    @property
    def most_groups(self) -> int:
        """Groups whose sums, of two rows of outputs and two pixels, fit in the cache."""
        return max(1, SUM_BYTES // (16 * self.tiles * self.filters))

    @classmethod
    def of(cls, level: Level, filters: int) -> Rows:
        """The form for `filters` filters; all keep as many sums in registers as there is room."""
        if level is Level.AVX2:
            return cls(6, 2, 16, apart=True)
        lanes = level.value.vector_bytes // 4
        if lanes == TILE_ROWS and filters <= TILE_ROWS:
            return cls(6, 1, lanes)
        return cls(3, 2, 2 * lanes)


@dataclass(frozen=True)
class Memory:
    """What is in memory at a time.

    Attributes:
        band: rows of tiles.
        blocks: blocks of 16 filters.
        groups: groups of tiles whose sums are computed together.
        teams: threads at most that compute bands of their own, each in its share of the memory.
        rows: pixels' rows of all bands at a time.
        inputs: bytes of the transformed inputs.
        weights: bytes of the transformed weights.
    """

    band: int
    blocks: int
    groups: int
    teams: int
    rows: int
    inputs: int
    weights: int

    @classmethod
    def of(cls, layer: DirectLayer, rows: Rows) -> Memory:
        """All weights and a band of inputs, or all inputs and some weights: what needs less."""
        height, columns = (layer.rows + 1) // 2, (layer.columns + 1) // 2
        group = -(-layer.channels // CHUNK) * 16 * CHUNK * rows.tiles
        # Sixteen positions; those of AVX2 lie a cache line further apart than they need.
        block = 16 * (layer.channels * TILE_ROWS + (64 if rows.apart else 0))
        blocks = round_up(-(-layer.filters // TILE_ROWS), rows.filters // TILE_ROWS)

        def input_bytes(band: int) -> int:
            return -(-band * columns // rows.tiles) * group

        band = max(INPUT_BYTES // input_bytes(1), -(-FEWEST_TILES // columns), 1)
        band = -(-height // -(-height // min(band, height)))
        if input_bytes(height) < blocks * block:
            band = height
            step = rows.filters // TILE_ROWS
            blocks = min(blocks, max(1, WEIGHT_BYTES // (block * step)) * step)
        groups = -(-band * columns // rows.tiles)
        spans = -(-groups // rows.most_groups)
        ready = blocks * TILE_ROWS >= layer.filters
        teams = min(band, MOST_TEAMS) if ready else 1
        shares = [(count, band // count) for count in range(1, teams + 1)]
        return cls(
            band,
            blocks,
            -(-groups // spans),
            teams,
            max(count * (2 * own + 2) for count, own in shares),
            max(count * input_bytes(own) for count, own in shares),
            blocks * block,
        )


@dataclass(frozen=True)
class Constants:
    """What all levels share.

    Attributes:
        fits: the transformed weights are bytes.
        starts: where sums begin.
        lifts: what position (1, 1) of the inputs gets besides 128, modulo 256: whole vectors of
            channels.
    """

    fits: bool
    starts: Array
    lifts: Array

    @classmethod
    def of(cls, layer: DirectLayer, codes: Sequence[Range]) -> Constants:
        """Those of a layer; `codes` of each channel."""
        weights = transformed(layer, 2)
        lifts = np.zeros(round_up(len(codes), CHUNK), np.uint8)
        lifts[: len(codes)] = (offsets(codes)[:, 1, 1] - OFFSET) % 256
        return cls(are_bytes(weights), start_values(codes, weights), lifts)


def plan_winograd(
    context: Context,
    step: Step,
    layer: DirectLayer,
    inputs: Sequence[str],
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    follower: Follower | None = None,
) -> tuple[Level, ...]:
    """Adds a variant for each level of x86 where the ranges are proven and it is faster.

    Args:
        context: the graph and its levels.
        step: where to.
        layer: the geometry.
        inputs: the values that are its parts.
        table: the packed weights, in tile order.
        epilogue: what `plan_epilogue` returned.
        y: the output pointer.
        follower: what runs on the rows of a band.

    Returns:
        The levels that are left to other kernels.
    """
    codes = [item for value in inputs for item in channel_codes(context.type(value))]
    if not has_form(layer) or not inputs_fit(codes) or not sums_fit(layer):
        return context.levels
    chosen = [
        level for level in context.levels if level.value.family is Family.X86 and pays(layer, level)
    ]
    if not chosen:
        return context.levels
    constants = Constants.of(layer, codes)
    left = [level for level in context.levels if level not in chosen]
    for level in chosen:
        if not _plan_level(context, step, layer, constants, table, epilogue, y, level, follower):
            left.append(level)
    return tuple(left)


def channel_codes(kind: TensorType) -> list[Range]:
    """The codes of each channel, and that of padding."""
    found = [kind.codes] * kind.shape[1]
    if kind.limits is not None and not kind.limits.is_per_tensor:
        found = [kind.limits.at(channel) for channel in range(kind.shape[1])]
    return [codes.union(Range(0, 0)) for codes in found]


def pays(layer: DirectLayer, level: Level) -> bool:
    """The cost model prefers Winograd."""
    shape = ConvShape(layer.channels, layer.filters, layer.rows, layer.columns)
    return winograd_pays(shape, level.name)


def _plan_level(
    context: Context,
    step: Step,
    layer: DirectLayer,
    constants: Constants,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    level: Level,
    follower: Follower | None,
) -> bool:
    """Adds the variant of `level`; False where the weights do not fit."""
    runs = None
    if level is Level.AVX2:
        weights = transformed(layer, 1)
        runs = pair_runs(layer, weights) if are_bytes(weights) else None
    if runs is None and (level is Level.AVX2 or not constants.fits):
        return False
    rows = Rows.of(level, layer.filters)
    memory = Memory.of(layer, rows)
    variant = step.variant(
        level,
        f"Winograd: {memory.band} rows of tiles, {memory.groups} x {rows.tiles} tiles x "
        f"{rows.filters} filters",
    )
    down, across = layer.phases[0].taps[0]
    pitch = round_up((2 * ((layer.columns + 1) // 2) + 2) * layer.channels, 64)
    pitch += 64 if pitch % CACHE_ALIAS == 0 else 0
    fields: dict[str, int | Sequence[int]] = {
        "out_size": (layer.rows, layer.columns),
        "above": -down,
        "channels": layer.channels,
        "filters": layer.filters,
        "band": memory.band,
        "blocks": memory.blocks,
        "groups": memory.groups,
        "teams": memory.teams,
    }
    band: dict[str, int | Sequence[int]] = {
        "size": layer.size,
        "channels": layer.channels,
        "left": -across,
        "pitch": pitch,
        "offset": 0,
    }
    variant.locals += [
        constant("winograd_shape", "winograd", fields),
        constant("band_shape", "rows", band),
    ]
    arguments = ["&winograd", "&rows"]
    for part in layer.parts:
        arguments += [part.bytes, str(part.channels)] if len(layer.parts) > 1 else [part.bytes]
    arguments += [
        variant.scratch("uint8_t", "band", memory.rows * pitch + CHUNK),
        table.arguments,
        variant.scratch("int8_t", "weights", memory.weights),
        variant.scratch("uint8_t", "transformed", memory.inputs),
        _table(step, "lifts", "uint8_t", constants.lifts, Role.TABLE),
        _table(step, "start", "int32_t", constants.starts, Role.EPILOGUE),
    ]
    if runs is not None:
        arguments += [_table(step, "runs", "uint8_t", runs, Role.TABLE), str(runs.shape[2])]
    arguments += ["&epilogue", y]
    if follower is not None:
        arguments += follower.arguments
        variant.follows = True
    item = _driver(context, step, layer, table, epilogue, level, rows, follower)
    variant.calls.append(f"{variant.use(item)}({', '.join(arguments)});")
    return True


def _table(step: Step, name: str, ctype: str, values: Array, role: Role) -> str:
    """A table that portable builds lack."""
    return step.table(f"winograd_{name}", ctype, values, role, family=Family.X86)


def _driver(
    context: Context,
    step: Step,
    layer: DirectLayer,
    table: PackedTable,
    epilogue: Kernel,
    level: Level,
    rows: Rows,
    follower: Follower | None,
) -> Kernel:
    """The kernel that calls the others."""
    op = step.op
    assert isinstance(op, SumOp)
    single, parts = level is Level.AVX2, len(layer.parts)
    across = not single and rows.filters > TILE_ROWS
    size = f"{rows.tiles}x{rows.filters}"
    stream, declared, unpack = stream_kernel(table, level)
    structs = [Kernel(name, name, shared=True) for name in ("winograd_shape", "band_shape", "team")]
    gather = kernel("band_rows", requires=structs[1:], suffix=f"_{parts}", parts=parts).at(level)
    inputs = kernel("winograd_inputs", suffix=f"_{rows.tiles}", tiles=rows.tiles, single=single)
    weights = kernel(
        "winograd_weights",
        requires=[stream],
        suffix="_" + stream.function.removesuffix("_" + level.value.suffix),
        packed=declared,
        unpack=unpack,
        stream=stream.function,
        single=single,
    )
    load = [kernel("load_dword", shared=True)]
    if single:
        products = kernel("winograd_rows_avx2", requires=load, suffix=f"_{size}", tiles=rows.tiles)
    else:
        products = kernel(
            "winograd_rows_vnni",
            requires=load,
            suffix=f"_{size}",
            tiles=rows.tiles,
            vectors=rows.vectors,
            across=across,
        )
    after = level_epilogue(epilogue, level, op, layer.sum_ranges())
    called = [item.at(level) for item in (gather, inputs, weights, products, after)]
    names = [weights.function.removeprefix("winograd_weights_"), size, after.function]
    driver = kernel(
        "conv_winograd",
        requires=[*structs, *called],
        suffix=f"_{parts}_{'_'.join(names)}".removesuffix("_" + level.value.suffix),
        parts=parts,
        tiles=rows.tiles,
        filters=rows.filters,
        largest=rows.most_groups,
        packed=declared,
        unpack=unpack,
        band_rows=called[0].function,
        inputs=called[1].function,
        weights=called[2].function,
        rows=called[3].function,
        runs=single,
        across=across,
        constants=constants_type(epilogue),
        epilogue=after.function,
        y=context.ctype(op.output),
    )
    return with_follower(driver, follower, level).at(level)
