"""The planner of attention over windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.epilogues import constants_type, plan_epilogue, real_constant
from qcompile.backends.c.local_attention_x86 import LEVELS, fits_x86, plan_x86
from qcompile.backends.c.names import float_literal
from qcompile.backends.c.program import Kernel, Role, Step, kernel
from qcompile.ops import AttentionWidths, LocalAttention2d
from qcompile.passes.choose_kernels import INT16, INT32, sums_type
from qcompile.passes.place_tensors import channels_last
from qcompile.types import Range, Shape

RUN = 64
"""Pixels that `local_attention_rows` computes at a time."""
LANES = 16
"""Pixels that it rounds the last run of a row up to: no vector is longer."""
MOST_CHANNELS = 16
"""Channels of a head up to which it is chosen, for rows of at least `LANES` pixels: it is no faster
from there on."""
MOST_HEADS = 16
"""Heads of one channel up to which it is chosen: from 32 on vectors of channels are faster."""


def plan_local_attention(context: Context, step: Step, op: LocalAttention2d) -> None:
    """One pass over the image, and the kernel whose innermost loops are longest.

    With many heads of one channel, they run over channels; with few channels in a head, over
    neighbouring pixels; else over the channels of a head. Held are the scores of one window, for
    pixels side by side those of `RUN` windows, and the rows of keys and values that they cover.
    Where attention is kept, the same kernel also stores the weights that it sums with.
    """
    names = ("q", "k", "v")
    q, k, v = (context.window(step, name, op.inputs[i]) for i, name in enumerate(names))
    y = context.write_as(step, "y", op.output, channels_last(4))
    queries, keys, values = (context.type(value).shape for value in op.inputs[:3])
    fields: dict[str, int | tuple[int, ...]] = {
        "size": keys[2:],
        "out_size": queries[2:],
        "kernel": op.kernel,
        "pad": op.pads_begin,
        "channels": queries[1],
        "values": values[1],
        "heads": op.heads,
    }
    epilogue = plan_epilogue(context, step, op, values[1])
    settings: dict[str, Any] = {
        "y": context.ctype(op.output),
        "epilogue": epilogue.function,
        "constants": constants_type(epilogue),
    }
    if sums_type(op) == "float":
        _plan_float(context, step, op, fields, epilogue, f"{q}, {k}, {v}", y)
        return
    widths = op.widths
    assert widths is not None
    types = [context.ctype(value) for value in op.inputs[:3]]
    line, scores = _line_type(context, op), _scores_type(context, op, widths)
    sums = sums_type(op)
    by_channel = op.heads == queries[1] == values[1]
    narrow = line != "int64_t" and scores == sums == "int32_t"
    by_rows = narrow and _few_channels(op, queries, values)
    if by_channel and op.heads > MOST_HEADS:
        by_rows = False
    fields |= {
        "factor": 1 << widths.key_bits,
        "shift": widths.index_shift,
        "last": len(widths.powers) - 1,
        "levels": widths.levels,
    }
    template, struct = "local_attention", "attention_shape"
    # What the windows of the last vector of pixels cover, too.
    row = -(-queries[3] // LANES) * LANES + op.kernel[1] - 1
    if by_rows:
        template, struct = "local_attention_rows", "attention_rows_shape"
        fields["line"] = row
        settings["run"] = RUN
        settings["short_values"] = INT16.contains(
            context.type(op.inputs[2]).codes.union(Range(0, widths.levels))
        )
    elif by_channel:
        template = "local_attention_channels"
    described = step.shape(struct, "shape", **fields)
    # By position, channels last, as the keys lie.
    data = context.graph.constants[op.inputs[3]].reshape(queries[1], op.positions).T
    embeddings = step.table("embeddings", line, data, Role.WEIGHTS, "relative positions")
    powers = step.table(
        "powers", "uint16_t", widths.powers, Role.TABLE, "2**15 exp(-difference of scores)"
    )
    kept = ""
    if context.keeps_attention:
        shape = (*queries[2:], op.positions, op.heads)
        kept = ", " + step.keep("attention", "uint16_t", shape)
    item = kernel(
        template,
        [*types, line, scores],
        requires=[epilogue],
        suffix="_" + epilogue.function + ("_kept" if kept else ""),
        keeps=bool(kept),
        q=types[0],
        k=types[1],
        v=types[2],
        line=line,
        scores=scores,
        sums=sums,
        **settings,
    )
    portable = step.variant(None)
    if by_rows:
        work = [
            portable.scratch(line, "keys", op.kernel[0] * queries[1] * row),
            portable.scratch(types[2], "values", op.kernel[0] * values[1] * row),
            portable.scratch(line, "query", queries[1] * RUN),
            portable.scratch(scores, "scores", op.positions * RUN),
            portable.scratch(sums, "sums", values[1] * RUN),
            portable.scratch(sums, "pixels", values[1] * RUN),
        ]
    elif by_channel:
        window = portable.scratch(scores, "scores", op.positions * op.heads)
        work = [window, portable.scratch(scores, "largest", op.heads)]
        work += [portable.scratch("uint32_t", name, op.heads) for name in ("total", "inverse")]
        work.append(portable.scratch(sums, "sums", values[1]))
    else:
        work = [
            portable.scratch(line, "query", queries[1]),
            portable.scratch(scores, "scores", op.positions * op.heads),
            portable.scratch(sums, "sums", values[1]),
        ]
    portable.calls.append(
        f"{portable.use(item)}({described}, {q}, {k}, {v}, {embeddings}, {powers}, &epilogue, {y}, "
        f"{', '.join(work)}{kept});"
    )
    if fits_x86(context, op, line, scores, sums):
        pointers = (q, k, v, y)
        for level in LEVELS:
            if level in context.levels:
                plan_x86(context, step, op, pointers, embeddings, powers, epilogue, kept, level)


def _few_channels(op: LocalAttention2d, queries: Shape, values: Shape) -> bool:
    """Whether a run of pixels fills vectors better than the channels of a head do."""
    channels = max(queries[1], values[1]) // op.heads
    return channels <= MOST_CHANNELS and queries[3] >= LANES


def _line_type(context: Context, op: LocalAttention2d) -> str:
    """The C type of keys with their embeddings, and of queries beside them."""
    q, k = (context.type(value) for value in op.inputs[:2])
    relative = context.graph.constants[op.inputs[3]]
    # Rows of keys are stored without their embeddings.
    keys = op.key_reach(k, relative).union(op.key_reach(k, np.zeros_like(relative)))
    widest = keys.union(q.codes)
    if INT16.contains(widest):
        return "int16_t"
    return "int32_t" if INT32.contains(widest) else "int64_t"


def _scores_type(context: Context, op: LocalAttention2d, widths: AttentionWidths) -> str:
    """The C type of scores, of their differences and of what replaces them."""
    q, k = (context.type(value) for value in op.inputs[:2])
    reach = op.score_reach(q, k, context.graph.constants[op.inputs[3]])
    spread = reach.high - reach.low + (1 << widths.index_shift)
    return "int32_t" if INT32.contains(Range(-spread, spread)) else "int64_t"


def _plan_float(
    context: Context,
    step: Step,
    op: LocalAttention2d,
    fields: dict[str, int | tuple[int, ...]],
    epilogue: Kernel,
    sources: str,
    y: str,
) -> None:
    described = step.shape("attention_float_shape", "shape", **fields)
    channels, values = context.type(op.inputs[0]).shape[1], context.type(op.inputs[2]).shape[1]
    relative = real_constant(context, op.inputs[3]).reshape(channels, op.positions).T
    tables = [step.table("embeddings", "float", relative, Role.WEIGHTS)]
    vectors = [real_constant(context, value) for value in op.inputs[4:]]
    neutral = (np.ones(values), np.zeros(values))
    for name, data in zip(("gain", "offset"), (*vectors, *neutral[len(vectors) :]), strict=True):
        tables.append(step.table(name, "float", data, Role.EPILOGUE))
    item = kernel(
        "local_attention_float",
        requires=[epilogue],
        suffix="_" + epilogue.function,
        needs_math=True,
        epilogue=epilogue.function,
        constants=constants_type(epilogue),
    )
    scores = step.scratch("float", "scores", op.positions * op.heads)
    sums = step.scratch("float", "sums", values)
    step.calls.append(
        f"{step.use(item)}({described}, {float_literal(op.score_scale)}, {sources}, "
        f"{', '.join(tables)}, &epilogue, {y}, {scores}, {sums});"
    )
