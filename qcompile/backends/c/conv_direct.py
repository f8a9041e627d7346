"""Direct convolution of bytes with SIMD: geometry, memory and the calls.

One driver (`conv_direct.c.j2`) serves Conv, ConvTranspose and MatMul, and one kernel for each
instruction set computes a tile, some pixels times some filters, with all sums in registers:

    input rows -> band (padded, bytes) ----------+
    packed weights -> bytes in tile order -------+-> tile of sums -> epilogue -> output

Rule of cost: rows of a band fit in a share of the second-level cache. Where all rows are one band,
the unpacked weights fit in such a share, too; otherwise all weights are unpacked once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.c.context import Context
from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.direct_tiles import Tile, choose_tile, tile_kernel
from qcompile.backends.c.epilogues import constants_type
from qcompile.backends.c.followers import Follower, with_follower
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Setting, Step, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import TILE_DEPTH, TILE_ROWS, PackedTable, round_up
from qcompile.ops import SumOp
from qcompile.packing import Packing

BAND_BYTES, LARGE_BAND_BYTES, BAND_ROWS = 128 << 10, 640 << 10, 8
"""Rows of input in the cache: as many as fit in the first, or up to `BAND_ROWS` of output that fit
in the second."""
WEIGHT_BYTES, GROUP = 160 << 10, 32
"""Unpacked weights in the cache; a multiple of so many filters at least."""
EPILOGUE_PIXELS = 16
"""The epilogue takes the sums of up to so many pixels at once, unless a tile has more."""
STREAM_CHUNK = 8192
"""Weights that one call unpacks: what threads share out, a multiple of the 8 of one step."""
CACHE_ALIAS = 4096
"""Rows this far apart would compete for the same lines of the first-level cache."""
VECTOR_BYTES = 64


def plan_direct(
    context: Context,
    step: Step,
    layer: DirectLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    levels: Sequence[Level],
    follower: Follower | None = None,
) -> None:
    """Adds a variant for each of `levels`.

    Args:
        context: the graph.
        step: where to.
        layer: the geometry.
        table: the packed weights, in tile order, phase after phase.
        epilogue: what `plan_epilogue` returned.
        y: the output pointer.
        levels: those without a better kernel.
        follower: what runs on the rows of a band.
    """
    if not layer.fits():
        return
    for level in levels:
        taken = dataclasses.replace(layer, signed=level.value.family is Family.NEON)
        _plan_level(context, step, taken, table, epilogue, y, level, follower)


def _plan_level(
    context: Context,
    step: Step,
    layer: DirectLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    level: Level,
    follower: Follower | None,
) -> None:
    op = step.op
    assert isinstance(op, SumOp)
    after = level_epilogue(epilogue, level, op, layer.sum_ranges())
    if level is Level.VNNI512 and layer.filters == TILE_ROWS:
        # Two vectors of filters share loads, and outputs are stored in longer pieces.
        layer = layer.two_abreast() or layer
    tile = choose_tile(layer, level)
    geometry = Geometry.of(layer, tile, follower.together if follower is not None else 1)
    variant = step.variant(level, geometry.note(tile))
    shape = Kernel("conv_direct_shape", "conv_direct_shape", shared=True)
    variant.locals += [
        constant("conv_direct_shape", "direct", geometry.fields(layer, tile)),
        f"static const conv_phase phases[] = {{ {', '.join(_phases(layer))} }};",
        constant_array("taps", geometry.taps(layer) or [0]),
    ]
    requires = [shape]
    arguments = ["&direct", "phases", "taps"]
    settings: dict[str, Setting] = {"parts": 0, "band_rows": ""}
    if geometry.gathered:
        parts = len(layer.parts)
        structs = [Kernel(name, name, shared=True) for name in ("band_shape", "team")]
        rows = kernel("band_rows", requires=structs, suffix=f"_{parts}", parts=parts).at(level)
        requires.append(rows)
        settings |= {"parts": parts, "band_rows": rows.function}
        variant.locals.append(constant("band_shape", "rows", geometry.band_fields(layer)))
        arguments.append("&rows")
        for part in layer.parts:
            arguments += [part.bytes] if parts == 1 else [part.bytes, str(part.channels)]
        arguments.append(variant.scratch("uint8_t", "band", geometry.band_bytes(layer)))
    else:
        arguments.append(layer.parts[0].bytes)
    unpacked = layer.weight_bytes
    if geometry.group < layer.filters:
        unpacked = geometry.group * layer.phases[0].depth
    arguments += [table.arguments, variant.scratch("int8_t", "weights", unpacked + VECTOR_BYTES)]
    if layer.offset:
        # Vectors are read whole.
        starts = [int(value) for value in layer.starts()] + [0] * (VECTOR_BYTES // 2 - 1)
        variant.locals.append(constant_array("start", starts))
        arguments.append("start")
    stream, declared, unpack = stream_kernel(table, level)
    micro = tile_kernel(tile, level)
    settings |= {
        "pixels": tile.pixels,
        "run": max(1, EPILOGUE_PIXELS // tile.pixels) * tile.pixels,
        "filters": tile.filters,
        "abreast": layer.abreast,
        "packed": declared,
        "unpack": unpack,
        "stream": stream.function,
        "chunk": STREAM_CHUNK,
        "offset": layer.offset != 0,
        "constants": constants_type(epilogue),
        "epilogue": after.function,
        "y": context.ctype(op.output),
        "tile": micro.function,
    }
    parts_of_name = [
        str(settings["parts"]),
        *(["offset"] if layer.offset else []),
        *(["abreast"] if layer.abreast > 1 else []),
        stream.function,
        micro.function.removeprefix("tile_"),
        after.function,
    ]
    arguments += ["&epilogue", y]
    if follower is not None:
        arguments += follower.arguments
        variant.follows = True
    suffix = "_".join(name.removesuffix(f"_{level.value.suffix}") for name in parts_of_name)
    driver = Kernel(
        "conv_direct",
        f"conv_direct_{suffix}",
        tuple(settings.items()),
        (*requires, stream, micro, after),
    )
    driver = with_follower(driver, follower, level).at(level)
    variant.calls.append(f"{variant.use(driver)}({', '.join(arguments)});")


def constant(struct: str, name: str, fields: Mapping[str, int | Sequence[int]]) -> str:
    """The declaration of a local descriptor."""
    shown = [
        f".{key} = {value if isinstance(value, int) else '{ ' + ', '.join(map(str, value)) + ' }'}"
        for key, value in fields.items()
    ]
    return f"static const {struct} {name} = {{ {', '.join(shown)} }};"


def constant_array(name: str, values: Sequence[int]) -> str:
    """The declaration of a local table of int32."""
    return f"static const int32_t {name}[] = {{ {', '.join(map(str, values))} }};"


@dataclass(frozen=True)
class Geometry:
    """Where things lie in a band.

    Attributes:
        gathered: rows are copied into a band; else the input itself is read.
        above: rows that the first output reads above its own.
        left: pixels of padding.
        extent: rows that an output row reads.
        pitch: bytes of a row.
        band: rows of outputs at a time.
        group: filters whose weights are unpacked at a time.
    """

    gathered: bool
    above: int
    left: int
    extent: int
    pitch: int
    band: int
    group: int

    @classmethod
    def of(cls, layer: DirectLayer, tile: Tile, together: int = 1) -> Geometry:
        """Where things lie; bands are a multiple of `together` rows, but for the last one."""
        taps = [tap for phase in layer.phases for tap in phase.taps] or [(0, 0)]
        down, across = layer.step
        group = layer.filters
        if _reads_input(layer, tile, taps):
            pitch = layer.size[1] * layer.channels
            return cls(False, 0, 0, 1, pitch, layer.rows, _group(layer))
        above = max(0, -min(tap[0] for tap in taps))
        extent = max(tap[0] for tap in taps) + above + 1
        left = max(0, -min(tap[1] for tap in taps))
        last = (round_up(layer.columns, tile.pixels) - 1) * across
        reach = (last + left + max(tap[1] for tap in taps)) * layer.channels + layer.segment
        pitch = round_up(max(reach, (left + layer.size[1]) * layer.channels), 64)
        pitch += 64 if pitch % CACHE_ALIAS == 0 else 0

        def fitting(limit: int) -> int:
            return max(1, (limit // pitch - extent) // down + 1)

        band = layer.rows
        if band > fitting(LARGE_BAND_BYTES) or _group(layer) == layer.filters:
            band = min(band, max(fitting(BAND_BYTES), min(BAND_ROWS, fitting(LARGE_BAND_BYTES))))
            band = -(-layer.rows // -(-layer.rows // band))
            band = min(layer.rows, round_up(band, together))
        else:
            group = _group(layer)
        return cls(True, above, left, extent, pitch, band, group)

    def taps(self, layer: DirectLayer) -> list[int]:
        """Bytes from what an output's row and column begin at to each segment."""
        return [
            (down + self.above) * self.pitch + (across + self.left) * layer.channels
            for phase in layer.phases
            for down, across in phase.taps
        ]

    def fields(self, layer: DirectLayer, tile: Tile) -> dict[str, int | Sequence[int]]:
        """Those of the driver's descriptor.

        Where all weights stay in the cache, filters take turns for each row: the row stays in the
        first-level cache, and lines of the output are complete before they leave it.
        """
        depth = sum(phase.depth for phase in layer.phases)
        return {
            "step": layer.step[1] * layer.channels,
            "length": layer.segment,
            "reach": tile.reach,
            "down": layer.step[0],
            "pitch": self.pitch,
            "rows": layer.rows,
            "band": self.band,
            "above": self.above,
            "extent": self.extent,
            "filters": layer.filters,
            "group": self.group,
            "weights": layer.weight_bytes,
            "phases": len(layer.phases),
            "rowwise": int(min(self.group, layer.filters) * depth <= WEIGHT_BYTES),
            "y_row": layer.y_row,
            "y_step": layer.y_step,
        }

    def band_fields(self, layer: DirectLayer) -> dict[str, int | Sequence[int]]:
        """Those of the descriptor of a band's rows."""
        return {
            "size": layer.size,
            "channels": layer.channels,
            "left": self.left,
            "pitch": self.pitch,
            "offset": layer.offset,
        }

    def band_bytes(self, layer: DirectLayer) -> int:
        """All rows of a band; the last dword of the last pixel may begin in the last byte."""
        return self.pitch * ((self.band - 1) * layer.step[0] + self.extent) + TILE_DEPTH

    def note(self, tile: Tile) -> str:
        """For the comment."""
        how = f"bands of {self.band} rows" if self.gathered else "input read in place"
        return f"direct: {how}, tiles of {tile.pixels} x {tile.filters}, {self.group} filters"


def _group(layer: DirectLayer) -> int:
    """Filters whose weights are unpacked at once, where all rows are in one band."""
    depth = layer.phases[0].depth
    if len(layer.phases) > 1 or layer.filters * depth <= WEIGHT_BYTES:
        return layer.filters
    return max(GROUP, WEIGHT_BYTES // depth // GROUP * GROUP)


def _reads_input(layer: DirectLayer, tile: Tile, taps: Sequence[tuple[int, int]]) -> bool:
    """Tiles read nothing but unsigned codes of the input, and never beyond its end."""
    return (
        len(layer.parts) == 1
        and layer.offset == 0
        and set(taps) == {(0, 0)}
        and layer.kernel_width == 1
        and layer.channels % TILE_DEPTH == 0
        and (layer.rows - 1) * layer.step[0] < layer.size[0]
        and (round_up(layer.columns, tile.pixels) - 1) * layer.step[1] < layer.size[1]
    )


def _phases(layer: DirectLayer) -> list[str]:
    """The initialisers of `conv_phase`."""
    shown = []
    tap = weight = 0
    for index, phase in enumerate(layer.phases):
        numbers = [tap, len(phase.taps), weight, phase.place, phase.rows, phase.columns]
        numbers += [phase.depth, index * layer.filters]
        shown.append(f"{{ {', '.join(map(str, numbers))} }}")
        tap += len(phase.taps)
        weight += layer.filters * phase.depth
    return shown


def stream_kernel(table: PackedTable, level: Level) -> tuple[Kernel, str, str]:
    """The kernel that expands weights; declaration and names of its first arguments."""
    neon = level.value.family is Family.NEON
    match table.packed.packing:
        case Packing.BASE3:
            return kernel("stream_base3").at(level), "const uint8_t *packed", "packed"
        case Packing.TABLE:
            assert table.levels is not None
            ctype = table.levels[1]
            named = kernel("stream_table", [ctype], level_type=ctype)
            template = "stream_table_neon" if neon else "stream_table"
            stream = dataclasses.replace(named, template=template).at(level)
            declared = f"const uint32_t *packed, int32_t bits, const {ctype} *levels"
            return stream, declared, "packed, bits, levels"
    stream = Kernel("stream_bits_neon" if neon else "stream_bits", "stream_bits").at(level)
    return stream, "const uint32_t *packed, int32_t bits", "packed, bits"
