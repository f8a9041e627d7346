"""Depthwise convolution of bytes with SIMD: many channels side by side, tap after tap.

Nothing is shared between channels, so the cost is that of bringing taps together: x86 multiplies
two or four of a channel in one instruction and interleaves them first, NEON widens and multiplies
one. Layers with fewer channels than a vector has bytes keep the portable kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_direct import constant, stream_kernel
from qcompile.backends.c.direct_layer import Part, byte_offset
from qcompile.backends.c.epilogues import constants_type
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Setting, Step, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import PackedTable, round_up
from qcompile.ops import SumOp
from qcompile.types import Array, Range

NO_BETTER = {Level.VNNI512: Level.VNNI, Level.DOT: Level.NEON}
"""Interleaving takes as long in wider vectors, and longer than the products it saves on NEON."""
LANE = 16
"""Channels of a 128-bit vector of bytes, the fewest that a kernel takes."""
PIXELS = 16
"""Whose sums are on the stack before the epilogue stores them."""
BAND_BYTES = 64 << 10
"""Rows of input in the cache."""
CACHE_ALIAS = 4096
"""Rows this far apart would compete for the same lines of the first-level cache."""
INT16 = Range(-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True)
class DepthwiseLayer:
    """One layer.

    Attributes:
        part: the input, [height, width, channels].
        size: (height, width) of the input.
        out_size: of the output.
        inputs: which codes the input has, padding included.
        codes: the weights [channels, kernel rows, kernel columns].
        stride: (down, across).
        pad: rows above and columns left of the input.
        dilation: (down, across).
    """

    part: Part
    size: tuple[int, int]
    out_size: tuple[int, int]
    inputs: Range
    codes: Array
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def channels(self) -> int:
        return int(self.codes.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.codes.shape[1]), int(self.codes.shape[2])

    def fits(self) -> bool:
        """Bytes times bytes, and a vector's worth of channels."""
        bytes_wide = self.inputs.high - self.inputs.low < 256
        weights = self.codes.min() >= -128 and self.codes.max() <= 127
        return bool(bytes_wide and weights and self.channels >= LANE)

    def sums(self, offset: int) -> tuple[Array, Array]:
        """(lowest, highest) that any partial sum of each channel reaches, `offset` added to x."""
        low, high = min(0, self.inputs.low + offset), max(0, self.inputs.high + offset)
        flat = self.codes.reshape(self.channels, -1).astype(np.int64)
        positive, negative = np.maximum(flat, 0).sum(axis=1), np.minimum(flat, 0).sum(axis=1)
        return positive * low + negative * high, positive * high + negative * low


@dataclass(frozen=True)
class Form:
    """How a level computes a tile.

    Attributes:
        name: 'dwords' (four taps in one instruction), 'short' (sums in 16 bits) or 'wide'.
        depth: taps side by side.
        each: channels of a lane whose taps follow each other in the weights.
        width: channels at a time.
    """

    name: str
    depth: int
    each: int
    width: int


def choose_form(layer: DepthwiseLayer, level: Level, offset: int) -> Form:
    """The cheapest way that is exact for the layer's ranges."""
    lows, highs = layer.sums(offset)
    short = INT16.contains(Range(int(lows.min()), int(highs.max())))
    if level.value.family is Family.NEON:
        return Form("short" if short else "wide", 1, LANE, LANE)
    width = 2 * LANE if layer.channels >= 2 * LANE else LANE
    if level is Level.AVX2:
        return Form("short", 2, 8, width) if short else Form("wide", 2, 4, width)
    return Form("dwords", 4, 4, width)


def plan_depthwise(
    context: Context,
    step: Step,
    layer: DepthwiseLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
) -> None:
    """Adds the variants of a depthwise layer.

    Args:
        context: the graph and its levels.
        step: where to.
        layer: the geometry.
        table: the packed weights, [tap][channel].
        epilogue: what `plan_epilogue` returned.
        y: the output pointer.
    """
    if layer.fits():
        for level in context.levels:
            if NO_BETTER.get(level) not in context.levels:
                _plan_level(context, step, layer, table, epilogue, y, level)


def _plan_level(
    context: Context,
    step: Step,
    layer: DepthwiseLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    level: Level,
) -> None:
    op = step.op
    assert isinstance(op, SumOp)
    offset = byte_offset(layer.inputs, level.value.family is Family.NEON)
    form = choose_form(layer, level, offset)
    taps = layer.codes[0].size
    padded_taps = round_up(taps, form.depth)
    band = Band.of(layer)
    variant = step.variant(level, f"depthwise: {form.name}, bands of {band.rows} rows")
    variant.locals += [
        constant("depthwise_shape", "depthwise", band.fields(layer)),
        constant("band_shape", "rows", band.row_fields(layer, offset)),
    ]
    blocked = round_up(layer.channels, form.width)
    arguments = [
        "&depthwise",
        "&rows",
        layer.part.bytes,
        table.arguments,
        variant.scratch("int8_t", "flat", taps * layer.channels),
        variant.scratch("int8_t", "weights", padded_taps * blocked),
    ]
    if offset:
        arguments.append(variant.scratch("int32_t", "start", layer.channels))
    arguments.append(variant.scratch("uint8_t", "band", band.bytes(layer)))
    stream, declared, unpack = stream_kernel(table, level)
    shape = Kernel("depthwise_shape", "depthwise_shape", shared=True)
    structs = [Kernel(name, name, shared=True) for name in ("band_shape", "team")]
    rows = kernel("band_rows", requires=structs, suffix="_1", parts=1).at(level)
    arrange = Kernel(
        "depthwise_weights",
        f"depthwise_weights_{form.depth}x{form.each}_{form.width}",
        (("depth", form.depth), ("each", form.each), ("width", form.width)),
    ).at(level)
    tile = _tile(layer, form, level, offset, shape)
    after = level_epilogue(epilogue, level, op, layer.sums(0))
    settings: dict[str, Setting] = {
        "packed": declared,
        "unpack": unpack,
        "stream": stream.function,
        "arrange": arrange.function,
        "band_rows": rows.function,
        "tile": tile.function,
        "epilogue": after.function,
        "constants": constants_type(epilogue),
        "y": context.ctype(op.output),
        "offset": offset != 0,
        "pixels": PIXELS,
        "width": form.width,
        "taps": taps,
        "padded_taps": padded_taps,
    }
    names = [stream.function, tile.function.removeprefix("depthwise_tile_"), after.function]
    suffix = "_".join(name.removesuffix(f"_{level.value.suffix}") for name in names)
    driver = Kernel(
        "conv_depthwise_bytes",
        f"conv_depthwise_{suffix}",
        tuple(settings.items()),
        (shape, rows, stream, arrange, tile, after),
    ).at(level)
    variant.calls.append(f"{variant.use(driver)}({', '.join([*arguments, '&epilogue', y])});")


def _tile(layer: DepthwiseLayer, form: Form, level: Level, offset: int, shape: Kernel) -> Kernel:
    """The kernel of the inner loops."""
    rows, columns = layer.kernel
    template = "depthwise_tile_neon" if level.value.family is Family.NEON else "depthwise_tile_x86"
    signed = "_offset" if offset else ""
    return Kernel(
        template,
        f"depthwise_tile_{form.name}_{form.width}_{rows}x{columns}{signed}",
        (
            ("form", form.name),
            ("width", form.width),
            ("kernel_rows", rows),
            ("kernel_columns", columns),
            ("offset", offset != 0),
        ),
        (shape,),
    ).at(level)


@dataclass(frozen=True)
class Band:
    """Rows of input that are copied at a time.

    Attributes:
        pitch: bytes of one.
        rows: of output that read them.
        extent: how many a row of output reads.
    """

    pitch: int
    rows: int
    extent: int

    @classmethod
    def of(cls, layer: DepthwiseLayer) -> Band:
        rows, columns = layer.kernel
        extent = (rows - 1) * layer.dilation[0] + 1
        reach = (layer.out_size[1] - 1) * layer.stride[1] + (columns - 1) * layer.dilation[1] + 1
        width = max(reach, layer.pad[1] + layer.size[1])
        pitch = round_up(width * layer.channels, 64)
        pitch += 64 if pitch % CACHE_ALIAS == 0 else 0
        fitting = max(1, (BAND_BYTES // pitch - extent) // layer.stride[0] + 1)
        return cls(pitch, min(layer.out_size[0], fitting), extent)

    def bytes(self, layer: DepthwiseLayer) -> int:
        """All rows."""
        return self.pitch * ((self.rows - 1) * layer.stride[0] + self.extent)

    def fields(self, layer: DepthwiseLayer) -> dict[str, int | tuple[int, int]]:
        """Those of the driver's descriptor."""
        return {
            "pitch": self.pitch,
            "below": layer.dilation[0] * self.pitch,
            "across": layer.dilation[1] * layer.channels,
            "step": layer.stride[1] * layer.channels,
            "down": layer.stride[0],
            "rows": layer.out_size[0],
            "columns": layer.out_size[1],
            "band": self.rows,
            "above": layer.pad[0],
            "extent": self.extent,
            "channels": layer.channels,
        }

    def row_fields(self, layer: DepthwiseLayer, offset: int) -> dict[str, int | tuple[int, int]]:
        """Those of the descriptor of a band's rows."""
        return {
            "size": layer.size,
            "channels": layer.channels,
            "left": layer.pad[1],
            "pitch": self.pitch,
            "offset": offset,
        }
