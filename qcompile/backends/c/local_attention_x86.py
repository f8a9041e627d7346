"""Attention over windows with SIMD: pixels side by side, codes in pairs of 16 bits.

One driver (`local_attention_x86.c.j2`) copies rows of queries, keys and values into planes, one
for each cell of 32 bits; one kernel computes a row of a head, and one brings the sums of all heads
together for the epilogue:

    q, k    two neighbouring channels of a head, or one where their number is odd
    v       one channel of a pixel and of the pixel to the right
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_direct import constant
from qcompile.backends.c.epilogues import constants_type
from qcompile.backends.c.exponential_factors import SHORT, exponential_factors
from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.names import c_type
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.backends.c.weights import round_up
from qcompile.ops import LocalAttention2d
from qcompile.passes.choose_kernels import INT16

LEVELS = (Level.VNNI512, Level.AVX2)
LANES = 16
"""Cells of the longest vector: rows of planes are multiples of it."""
MOST_POSITIONS = 63
"""Of a window: with more, sums of exponentials would need more bits than weights are proven for."""
MOST_LEVELS = 1 << 14
BAND_ROWS, BAND_BYTES = 16, 256 << 10
"""Rows of queries at a time: at most so many, fewer if planes and sums would not fit in a share of
the second-level cache."""
EPILOGUE_SUMS = 1024
"""Sums that the epilogue takes at once."""


def fits_x86(context: Context, op: LocalAttention2d, line: str, scores: str, sums: str) -> bool:
    """Keys, queries and values of 16 bits, scores and sums of 32."""
    widths = op.widths
    assert widths is not None
    values = context.type(op.inputs[2])
    return (
        line == "int16_t"
        and scores == sums == "int32_t"
        and INT16.contains(values.codes)
        and op.positions <= MOST_POSITIONS
        and widths.levels <= MOST_LEVELS
    )


def plan_x86(
    context: Context,
    step: Step,
    op: LocalAttention2d,
    pointers: tuple[str, str, str, str],
    embeddings: str,
    powers: str,
    epilogue: Kernel,
    kept: str,
    level: Level,
) -> None:
    """Adds the variant of one level.

    Args:
        context: the graph.
        step: where to.
        op: for which `fits_x86` holds.
        pointers: queries, keys, values, output.
        embeddings: the table, int16 [positions, channels].
        powers: the table of exponentials.
        epilogue: what `plan_epilogue` returned.
        kept: the pointer to the weights that builds with taps keep; empty without.
        level: one of `LEVELS`.
    """
    widths, accumulator = op.widths, op.accumulator
    assert widths is not None
    assert accumulator is not None
    queries, keys, values = (context.type(value) for value in op.inputs[:3])
    rows, columns = queries.shape[2:]
    channels, outputs = queries.shape[1], values.shape[1]
    depth, width = channels // op.heads, outputs // op.heads
    paired = depth % 2 == 0
    cells = channels // 2 if paired else channels
    # The last vector of a row sees what windows beside the image would.
    line = round_up(round_up(columns, LANES) + op.kernel[1], LANES)
    line = max(line, round_up(keys.shape[3] + op.pads_begin[1], LANES))
    run = min(max(EPILOGUE_SUMS // outputs // 8 * 8, 8), round_up(columns, 8))
    band = _band(rows, op.kernel[0], cells, outputs, line, run)
    sums = accumulator.range
    limits = (np.array([sums.low]), np.array([sums.high]))
    after = level_epilogue(epilogue, level, op, limits)
    factors = exponential_factors(np.array(widths.powers), level)
    factored = factors is not None
    constants = powers
    if factors is not None:
        bits = 8 * level.value.vector_bytes
        constants = step.table(
            f"factors{bits}", "float", factors, Role.TABLE, "of exponentials", Family.X86
        )
    dword = kernel("load_dword", shared=True)
    shape = kernel("attention_cells_shape", shared=True)
    layouts = ["pairs" if paired else "singles"] * 2 + ["neighbours"]
    sources = [
        kernel("attention_cells_x86", [c_type(kind.element)], [dword], f"_{layout}",
               x=c_type(kind.element), cells=layout).at(level)
        for kind, layout in zip((queries, keys, values), layouts, strict=True)
    ]  # fmt: skip
    head_cells = cells // op.heads
    kind = "long" if len(widths.powers) > SHORT else "short"
    common: dict[str, Any] = {
        "rows": op.kernel[0],
        "columns": op.kernel[1],
        "factored": factored,
        "keeps": bool(kept),
    }
    suffix = (
        f"_{op.kernel[0]}x{op.kernel[1]}_{'pairs' if paired else 'singles'}_{head_cells}_{width}"
        f"_{kind if factored else 'table'}{'_kept' if kept else ''}"
    )
    head = kernel(
        "attention_head_x86",
        [],
        [shape, dword],
        suffix,
        cells=head_cells,
        width=width,
        paired=paired,
        long=kind == "long",
        **common,
    ).at(level)
    pixels = kernel("attention_pixels_x86").at(level)
    driver = kernel(
        "local_attention_x86",
        [c_type(item.element) for item in (queries, keys, values)],
        [shape, kernel("team", shared=True), *sources, head, pixels, after],
        suffix + "_" + after.function.removesuffix(f"_{level.value.suffix}"),
        q=c_type(queries.element),
        k=c_type(keys.element),
        v=c_type(values.element),
        y=context.ctype(op.output),
        constants=constants_type(epilogue),
        q_cells=sources[0].function,
        k_cells=sources[1].function,
        v_cells=sources[2].function,
        head=head.function,
        pixels=pixels.function,
        epilogue=after.function,
        **common,
    ).at(level)
    variant = step.variant(level, f"pixels side by side, bands of {band} rows")
    variant.locals.append(
        constant(
            "attention_cells_shape",
            "windows",
            {
                "size": keys.shape[2:],
                "out_size": (rows, columns),
                "pad": op.pads_begin,
                "channels": channels,
                "values": outputs,
                "cells": cells,
                "heads": op.heads,
                "key_bits": widths.key_bits,
                "shift": widths.index_shift,
                "last": len(widths.powers) - 1,
                "levels": widths.levels,
                "band": band,
                "line": line,
                "run": run,
            },
        )
    )
    held = band + op.kernel[0] - 1
    q, k, v, y = pointers
    work = [
        variant.scratch("int32_t", "queries", band * cells * line),
        variant.scratch("int32_t", "keys", held * cells * line),
        variant.scratch("int32_t", "values", held * outputs * line),
        variant.scratch("int32_t", "sums", band * outputs * line),
        variant.scratch("int32_t", "pixels", band * outputs * run),
    ]
    variant.calls.append(
        f"{variant.use(driver)}(&windows, {q}, {k}, {v}, {embeddings}, {constants}, &epilogue, "
        f"{y}, {', '.join(work)}{kept});"
    )


def _band(rows: int, window: int, cells: int, outputs: int, line: int, run: int) -> int:
    """Rows of queries at a time."""
    each = 4 * ((cells + outputs) * line + outputs * run)
    held = 4 * (cells + outputs) * line
    fitting = (BAND_BYTES - (window - 1) * held) // (each + held)
    return max(1, min(fitting, BAND_ROWS, rows))
