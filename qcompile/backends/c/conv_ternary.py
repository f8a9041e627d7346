"""Convolution with weights -1, 0 and 1 over bytes: additions only.

    input rows -> planes, one a channel (padded, unsigned bytes) -+
    packed weights -> lists of offsets, eight for two filters ----+-> sums -> epilogue

An input that adds to both filters of a pair, or to one what it takes from the other, is added once
for both. Weights of 0 are in no list. `passes/kernel_costs.py` says where that is faster than
products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_direct import constant, constant_array
from qcompile.backends.c.conv_planes import Window
from qcompile.backends.c.conv_winograd import channel_codes
from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.epilogues import constants_type
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Role, Step, Variant, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import (
    LENGTH_BLOCK,
    ROW_BLOCK,
    TILE_DEPTH,
    TILE_ROWS,
    PackedTable,
    round_up,
    unpack_kernel,
)
from qcompile.backends.c.winograd_ranges import has_form, inputs_fit, sums_fit
from qcompile.ops import SumOp
from qcompile.packing import Packing
from qcompile.passes.kernel_costs import ConvShape, TernaryShape, ternary_pays
from qcompile.types import Array, Range

PLANE_BYTES = 256 << 10
"""Planes of a band: they stay in the second-level cache."""
FEWEST_ROWS = 4
"""Of outputs in a band, so that rows of the input are laid out at most so often."""
LIST_BYTES = 128 << 10
"""Lists of the filters that take turns at the positions of a band."""
BLOCK = 256
"""Positions side by side at most."""
GROUP = 8
"""Taps that are added at a time."""
FOUR = 4
"""Lists have a multiple of this length."""
LISTS = 8
SET = TILE_ROWS // 2
"""Pairs whose sums are computed one after the other and stored together."""
UNIT = 32
"""Positions that loops compute at a time."""
CACHE_ALIAS = 4096
"""Planes this far apart would compete for the same lines of the first-level cache."""
LINE = 64
TERNARY = Range(-1, 1)
INT16 = Range(-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True)
class TernaryLayer:
    """One layer.

    Attributes:
        layer: what all kernels of bytes need to know.
        window: of an output position.
        codes: the weights [filters, kernel rows, kernel columns, channels].
    """

    layer: DirectLayer
    window: Window
    codes: Array

    def fits(self) -> bool:
        """Weights are -1, 0 and 1, and inputs are bytes."""
        codes = self.codes
        ternary = codes.size and TERNARY.contains(Range(int(codes.min()), int(codes.max())))
        return bool(ternary) and self.layer.fits()

    @property
    def pairs(self) -> int:
        return -(-self.layer.filters // 2)

    @property
    def most(self) -> int:
        """Codes whose sum fits in 8 bits: a power of two, at most `GROUP`."""
        fitting = 255 // max(1, self.layer.bytes.high)
        return int(min(GROUP, 1 << (fitting.bit_length() - 1)))

    @property
    def short(self) -> bool:
        """The sums fit in 16 bits, whatever their parts do."""
        lows, highs = self.layer.sum_ranges()
        return INT16.contains(Range(int(lows.min()), int(highs.max())))

    def lengths(self) -> Array:
        """How long the lists of each pair are: [pairs, 8]."""
        flat = self.codes.reshape(self.layer.filters, -1).astype(np.int8)
        if len(flat) % 2:
            flat = np.concatenate([flat, np.zeros_like(flat[:1])])
        f, g = flat[::2], flat[1::2]
        cases = [(-1, 1), (1, -1), (1, 1), (-1, -1), (-1, 0), (1, 0), (0, -1), (0, 1)]
        counts = [((f == a) & (g == b)).sum(axis=1) for a, b in cases]
        return -(-np.stack(counts, axis=1) // FOUR) * FOUR


@dataclass(frozen=True)
class Planes:
    """Where things lie.

    Attributes:
        skips: (vertical, horizontal) images of a plane: positions within the stride that are read.
        band: rows of outputs at a time.
        image_rows: of a band.
        pitch: positions of a row.
        plane_step: bytes from one channel to the next.
    """

    skips: tuple[int, int]
    band: int
    image_rows: int
    pitch: int
    plane_step: int

    @classmethod
    def of(cls, layer: DirectLayer, window: Window) -> Planes:
        reach = [(k - 1) * d for k, d in zip(window.kernel, window.dilation, strict=True)]
        skips = tuple(
            max(k * d % stride for k in range(kernel)) + 1
            for kernel, d, stride in zip(window.kernel, window.dilation, window.stride, strict=True)
        )
        halo, beside = (part // s for part, s in zip(reach, window.stride, strict=True))
        pitch = layer.columns + beside
        row = (layer.channels + 1) * skips[0] * skips[1] * pitch
        band = min(layer.rows, max(FEWEST_ROWS, PLANE_BYTES // row - halo))
        band = -(-layer.rows // -(-layer.rows // band))
        image_rows = band + halo
        plane = round_up(skips[0] * skips[1] * image_rows * pitch, LINE)
        plane += LINE if plane % CACHE_ALIAS == 0 else 0
        return cls((skips[0], skips[1]), band, image_rows, pitch, plane)

    def taps(self, window: Window) -> list[int]:
        """Bytes from an output's position to each tap, in a plane."""
        places = []
        for ky in range(window.kernel[0]):
            for kx in range(window.kernel[1]):
                row, skip = divmod(ky * window.dilation[0], window.stride[0])
                column, beside = divmod(kx * window.dilation[1], window.stride[1])
                image = skip * self.skips[1] + beside
                places.append((image * self.image_rows + row) * self.pitch + column)
        return places


@dataclass(frozen=True)
class Lists:
    """Where entries are.

    Attributes:
        starts: of each list in those of a pair, and their end.
        step: elements from one pair to the next: how long its lists are, and these.
        together: pairs whose lists are in memory.
    """

    starts: tuple[int, ...]
    step: int
    together: int

    @classmethod
    def of(cls, ternary: TernaryLayer) -> Lists:
        longest = ternary.lengths().max(axis=0)
        starts = (0, *(int(total) for total in np.cumsum(longest)))
        # What is in no list is written behind the last.
        step = round_up(LISTS + starts[-1] + 1, FOUR)
        sets = max(1, LIST_BYTES // (4 * step * SET))
        return cls(starts, step, min(sets * SET, ternary.pairs))


def ternary_levels(
    context: Context, ternary: TernaryLayer, inputs: Sequence[str]
) -> tuple[Level | None, ...]:
    """Where additions are faster than other kernels; None stands for portable C.

    Args:
        context: the graph and its levels.
        ternary: the layer.
        inputs: the values that are its parts.
    """
    if not ternary.fits():
        return ()
    layer, taps = ternary.layer, ternary.codes[0, ..., 0].size
    planes, lists = Planes.of(layer, ternary.window), Lists.of(ternary)
    bands = -(-layer.rows // planes.band)
    positions = bands * round_up((planes.band - 1) * planes.pitch + layer.columns, UNIT)
    builds = bands if lists.together < ternary.pairs else 1
    work = TernaryShape(
        positions,
        int(ternary.lengths().sum()),
        ternary.pairs,
        layer.channels,
        layer.filters * taps * layer.channels * builds,
        ternary.most == 1,
        not ternary.short,
    )
    shape = ConvShape(layer.channels, layer.filters, layer.rows, layer.columns, taps)
    codes = [item for value in inputs for item in channel_codes(context.type(value))]
    winograd = has_form(layer) and inputs_fit(codes) and sums_fit(layer)
    # One filter alone has kernels of its own.
    levels = [
        level for level in context.levels if level.value.family is Family.X86 and layer.filters > 1
    ]
    return tuple(
        level
        for level in (None, *levels)
        if ternary_pays(work, shape, level.name if level else "portable", winograd)
    )


def plan_ternary(
    context: Context,
    step: Step,
    variant: Variant,
    ternary: TernaryLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
) -> None:
    """Fills `variant`, portable or for a level.

    Args:
        context: the graph.
        step: whose variant it is.
        variant: where memory and calls go.
        ternary: the geometry.
        table: the packed weights, in tile order.
        epilogue: what `plan_epilogue` returned.
        y: the output pointer.
    """
    op = step.op
    assert isinstance(op, SumOp)
    layer, window, level = ternary.layer, ternary.window, variant.level
    planes = Planes.of(layer, window)
    codes = table.packed.packing is not Packing.BITS or table.packed.bits != 2
    taps = window.kernel[1] if window.dilation[1] == 1 else 1
    segments = window.kernel[0] * window.kernel[1] // taps
    segment = taps * layer.channels
    if not codes:
        segment = round_up(segment, TILE_DEPTH)
    lists = Lists.of(ternary)
    fields: dict[str, int | Sequence[int]] = {
        "size": layer.size,
        "out_size": (layer.rows, layer.columns),
        "stride": window.stride,
        "pad": window.pad,
        "skips": planes.skips,
        "channels": layer.channels,
        "filters": layer.filters,
        "offset": layer.offset,
        "band": planes.band,
        "image_rows": planes.image_rows,
        "pitch": planes.pitch,
        "plane_step": planes.plane_step,
        "segments": segments,
        "segment": segment,
        "taps": taps,
        "length": segments * segment,
        "row": round_up(segments * segment, LENGTH_BLOCK),
        "together": lists.together,
        "list_step": lists.step,
        "starts": lists.starts,
    }
    variant.note = (
        f"ternary: bands of {planes.band} rows, {min(2 * lists.together, layer.filters)} filters"
    )
    variant.locals += [
        constant("ternary_shape", "ternary", fields),
        constant_array("taps", planes.taps(window)),
    ]
    arguments = ["&ternary", "taps"]
    for part in layer.parts:
        arguments += [part.bytes, str(part.channels)]
    if codes:
        rows = round_up(layer.filters, ROW_BLOCK) * round_up(segments * segment, LENGTH_BLOCK)
        unpacked = variant.scratch("int8_t", "weights", rows)
        unpack = unpack_kernel(table, "int8_t", scaled=False, tiled=True).at(level)
        variant.calls.append(
            f"{variant.use(unpack)}({table.arguments}, 0, {layer.filters}, {segments}, "
            f"{segment}, {unpacked});"
        )
        arguments.append(unpacked)
    else:
        arguments.append(table.name)
    first = np.zeros(2 * ternary.pairs, np.int64)
    first[: layer.filters] = layer.starts()
    arguments += [
        step.table("ternary_start", "int32_t", first, Role.EPILOGUE),
        "&epilogue",
        y,
        variant.scratch("uint8_t", "planes", (layer.channels + 1) * planes.plane_step + BLOCK),
        variant.scratch("int32_t", "offsets", segments * segment),
        variant.scratch("int32_t", "lists", lists.together * lists.step),
    ]
    item = _driver(context, op, ternary, epilogue, level, codes)
    variant.calls.append(f"{variant.use(item)}({', '.join(arguments)});")


def _driver(
    context: Context,
    op: SumOp,
    ternary: TernaryLayer,
    epilogue: Kernel,
    level: Level | None,
    codes: bool,
) -> Kernel:
    """The kernel that calls the others."""
    layer, parts = ternary.layer, len(ternary.layer.parts)
    sums = "uint16_t" if ternary.short else "int32_t"
    structs = [Kernel(name, name, shared=True) for name in ("ternary_shape", "team")]
    turns = [kernel("interleave", [ctype], type=ctype) for ctype in ("uint8_t", sums)]
    gather = kernel(
        "ternary_planes",
        requires=[*structs, turns[0]],
        suffix=f"_{parts}",
        parts=parts,
        interleave=turns[0].at(level).function,
    )
    lister = kernel(
        "ternary_lists", requires=structs, suffix="_codes" if codes else "", codes=codes
    )
    after = epilogue
    if level is not None:
        after = level_epilogue(epilogue, level, op, layer.sum_ranges())
    driver = kernel(
        "conv_ternary",
        [sums],
        requires=[*structs, turns[1], gather, lister, after],
        suffix=f"_{parts}_{ternary.most}{'_codes' if codes else ''}_{epilogue.function}",
        parts=parts,
        most=ternary.most,
        codes=codes,
        sums=sums,
        interleave=turns[1].at(level).function,
        gather=gather.at(level).function,
        lister=lister.at(level).function,
        constants=constants_type(epilogue),
        epilogue=after.function,
        y=context.ctype(op.output),
    )
    return _compiled(driver, level)


def _compiled(item: Kernel, level: Level | None) -> Kernel:
    """`item` and what it calls, for `level`."""
    if level is None or item.shared or item.level is level:
        return item
    requires = tuple(_compiled(required, level) for required in item.requires)
    return Kernel(item.template, item.function, item.settings, requires, item.needs_math).at(level)
