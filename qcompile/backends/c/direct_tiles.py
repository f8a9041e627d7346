"""Which tile computes a direct convolution: instructions, pixels, filters, proven ranges.

A tile keeps the sums of some pixels times some filters in registers. It needs a cycle for each two
products of vectors or each two loads, whichever is more; fewer than `LATENCY` sums leave the
multipliers idle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Setting, kernel
from qcompile.backends.c.weights import TILE_DEPTH, round_up
from qcompile.types import Array, Range

INT16 = Range(-(1 << 15), (1 << 15) - 1)
SHORTEST_REACH = 16
"""Bytes: summing in 16 bits pays from here on."""
NEON_REACH = 32
"""Bytes: the same for NEON, which has an instruction that widens pairs of products."""
LATENCY = 10
INLINED_DEPTH = 64
"""Bytes of a filter's weights up to which tiles of VNNI are inlined."""
WIDEST_SHARED = 5
"""Kernels up to this width can share loaded inputs among neighbouring pixels."""


@dataclass(frozen=True)
class Tile:
    """The kernel of the inner loops: which, and its size.

    Attributes:
        template: its stem.
        pixels: of a tile.
        vectors: of filters.
        filters: that the vectors hold.
        form: of the template: how products are added, or taps that share loads.
        reach: bytes whose products add up in 16 bits.
        inlined: the driver takes it in, which pays where it has little to do (gcc then spills
            sums, which longer ones would feel).
    """

    template: str
    pixels: int
    vectors: int
    filters: int
    form: str | int
    reach: int = 0
    inlined: bool = False


def choose_tile(layer: DirectLayer, level: Level) -> Tile:
    """The kernel and its size that need the fewest cycles for a row of outputs."""
    across = level.value.vector_bytes // 4
    if level.value.family is Family.NEON:
        return _neon_tile(layer, level)
    if level is Level.AVX2:
        reach = short_reach(layer, 2)
        form = "wide" if reach == 0 else "short" if reach >= SHORTEST_REACH else "pairs"
        vectors = 1 if layer.filters <= 8 else 2
        pixels = _pixels(layer.columns, 4 if vectors == 2 else 8, vectors, 0)
        return Tile("tile_avx2", pixels, vectors, 8 * vectors, form, reach)
    shared = layer.kernel_width if layer.step[1] == 1 else 1
    if shared == 1 or shared > WIDEST_SHARED or layer.channels % TILE_DEPTH:
        shared = 0
    # Two vectors of filters share a load; whole ones only where a vector is a block of weights.
    vectors = 2 if layer.filters > across and (across == 8 or layer.filters % 32 == 0) else 1
    most = 8 if vectors == 2 else 16 if shared else 12
    pixels = _pixels(layer.columns, most, vectors, shared)
    inlined = max(phase.depth for phase in layer.phases) <= INLINED_DEPTH
    return Tile("tile_vnni", pixels, vectors, across * vectors, shared, 0, inlined)


def _neon_tile(layer: DirectLayer, level: Level) -> Tile:
    """All 32 registers: sums, the weights of a dword, and inputs."""
    vectors = min(4, -(-layer.filters // 4))
    if level is Level.DOT:
        pixels = _pixels(layer.columns, {4: 5, 3: 6, 2: 8, 1: 12}[vectors], vectors, 0)
        return Tile("tile_dot", pixels, vectors, 4 * vectors, "")
    reach = short_reach(layer, 1)
    form = "short" if reach >= NEON_REACH else "pairs" if _two_fit(layer) else "single"
    most = (12 if form == "short" else 8) // vectors
    pixels = _pixels(layer.columns, most, vectors, 0)
    return Tile("tile_neon", pixels, vectors, 4 * vectors, form, reach)


def _two_fit(layer: DirectLayer) -> bool:
    """Any two products of a weight and an input add up in 16 bits."""
    largest = max(int(np.abs(p.codes.astype(np.int64)).max(initial=0)) for p in layer.phases)
    return 2 * largest * layer.bytes.magnitude <= INT16.high


def _pixels(columns: int, most: int, vectors: int, shared: int) -> int:
    """Pixels of a tile, so that a row of `columns` needs the fewest cycles."""

    def cycles(pixels: int) -> float:
        loads: float = pixels + vectors
        if shared:
            loads = (pixels + shared - 1 + shared * vectors) / shared
        return -(-columns // pixels) * max(pixels * vectors, loads, LATENCY)

    return min(range(1, most + 1), key=lambda pixels: (cycles(pixels), -pixels))


def short_reach(layer: DirectLayer, group: int = 2) -> int:
    """Bytes of a filter's weights whose products with any input add up in 16 bits.

    The products of `group` neighbouring inputs are added first, so that a dword of four gives
    4 / `group` sums of 16 bits; a tile adds `reach / 4` dwords to each of them, beginning at
    multiples of that, before it widens them. Returns 0 where even a single group exceeds 16 bits.
    """
    reach = max(phase.depth for phase in layer.phases)
    for phase in layer.phases:
        if phase.depth == 0:
            continue
        codes = np.zeros((layer.filters, len(phase.taps), layer.segment), np.int64)
        codes[:, :, : phase.codes.shape[2]] = phase.codes
        ends = codes * layer.bytes.low, codes * layer.bytes.high
        shape = (layer.filters, phase.depth // TILE_DEPTH, TILE_DEPTH // group, group)
        bounds = [
            np.minimum(*ends).reshape(shape).sum(axis=3),
            np.maximum(*ends).reshape(shape).sum(axis=3),
        ]
        while reach > 0 and not all(_adds_up(bound, reach // TILE_DEPTH) for bound in bounds):
            flushes = -(-phase.depth // reach) + 1
            shorter = round_up(-(-phase.depth // flushes), TILE_DEPTH)
            reach = shorter if shorter < reach else reach - TILE_DEPTH
    return reach


def _adds_up(bound: Array, dwords: int) -> bool:
    """Sums over `dwords` along axis 1, from each multiple of it on, fit in 16 bits."""
    sums = np.add.reduceat(bound, np.arange(0, bound.shape[1], dwords), axis=1)
    return INT16.contains(Range(int(sums.min()), int(sums.max())))


def tile_kernel(tile: Tile, level: Level) -> Kernel:
    """The kernel that computes `tile`."""
    if level.value.family is Family.NEON:
        return _neon_kernel(tile, level)
    form = f"_{tile.form}" if tile.template == "tile_avx2" else f"_k{tile.form}"
    form = form if tile.form else ""
    settings: dict[str, Setting] = {
        "form" if tile.template == "tile_avx2" else "kernel_width": tile.form,
        "pixels": tile.pixels,
        "vectors": tile.vectors,
        "inlined": tile.inlined,
    }
    return Kernel(
        tile.template,
        f"{tile.template}_{tile.pixels}x{tile.filters}{form}{'_in' * tile.inlined}",
        tuple(settings.items()),
        (
            Kernel("conv_direct_shape", "conv_direct_shape", shared=True),
            kernel("load_dword", shared=True),
        ),
    ).at(level)


def _neon_kernel(tile: Tile, level: Level) -> Kernel:
    four = kernel("four_codes").at(level)
    form: tuple[tuple[str, Setting], ...] = (("form", tile.form),) if tile.form else ()
    return Kernel(
        tile.template,
        f"tile_{tile.pixels}x{tile.filters}{f'_{tile.form}' if tile.form else ''}",
        (*form, ("pixels", tile.pixels), ("vectors", tile.vectors), ("four_codes", four.function)),
        (Kernel("conv_direct_shape", "conv_direct_shape", shared=True), four),
    ).at(level)
