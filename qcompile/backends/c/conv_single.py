"""A convolution with one filter and one tap, as at the end of many networks: products of pixels.

Vectors of filters would be empty but for one lane. Channels lie side by side instead, so vectors
hold several pixels, whose products are added up across the lanes at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_direct import stream_kernel
from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.direct_tiles import short_reach
from qcompile.backends.c.epilogues import constants_type, is_flat
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel, Setting, Step
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import PackedTable
from qcompile.ops import SumOp

CHANNEL_BLOCK = 16


def plan_single(
    context: Context,
    step: Step,
    layer: DirectLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    levels: Sequence[Level],
) -> tuple[Level, ...]:
    """Adds variants where the layer has this form; the arguments are those of `plan_direct`.

    Returns:
        The levels that need another kernel.
    """
    op = step.op
    assert isinstance(op, SumOp)
    left = []
    for level in levels:
        if level.value.family is Family.X86 and _fits(op, layer, level):
            _plan_level(context, step, layer, table, epilogue, y, level)
        else:
            left.append(level)
    return tuple(left)


def _fits(op: SumOp, layer: DirectLayer, level: Level) -> bool:
    """One filter, one tap at every pixel, inputs unsigned; AVX2: pairs of products in 16 bits."""
    pixels = layer.size[0] * layer.size[1]
    return (
        layer.fits()
        and layer.filters == 1
        and len(layer.parts) == 1
        and [phase.taps for phase in layer.phases] == [((0, 0),)]
        and layer.kernel_width == 1
        and (layer.rows, layer.columns) == layer.size
        and layer.channels % CHANNEL_BLOCK == 0
        and layer.inputs.low >= 0
        and pixels >= level.value.vector_bytes // 4
        and is_flat(op)
        and (level is not Level.AVX2 or short_reach(layer) > 0)
    )


def _plan_level(
    context: Context,
    step: Step,
    layer: DirectLayer,
    table: PackedTable,
    epilogue: Kernel,
    y: str,
    level: Level,
) -> None:
    op = step.op
    assert isinstance(op, SumOp)
    variant = step.variant(level, "direct: one filter, pixels side by side")
    stream, declared, unpack = stream_kernel(table, level)
    after = level_epilogue(epilogue, level, op, layer.sum_ranges())
    settings: dict[str, Setting] = {
        "packed": declared,
        "unpack": unpack,
        "stream": stream.function,
        "constants": constants_type(epilogue),
        "epilogue": after.function,
        "y": context.ctype(op.output),
    }
    names = [stream.function, after.function]
    suffix = "_".join(name.removesuffix(f"_{level.value.suffix}") for name in names)
    item = Kernel(
        "conv_single", f"conv_single_{suffix}", tuple(settings.items()), (stream, after)
    ).at(level)
    weights = variant.scratch("int8_t", "weights", layer.channels)
    pixels = layer.size[0] * layer.size[1]
    variant.calls.append(
        f"{variant.use(item)}({layer.parts[0].bytes}, {pixels}, {layer.channels}, "
        f"{table.arguments}, {weights}, &epilogue, {y});"
    )
