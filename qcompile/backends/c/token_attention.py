"""The planner of attention over tokens: two products and the softmax between them in one step."""

from __future__ import annotations

import numpy as np

from qcompile.backends.c.context import Context, View
from qcompile.backends.c.elementwise import broadcast_strides
from qcompile.backends.c.epilogues import constants_type, plan_epilogue
from qcompile.backends.c.matrices import CHUNK, Products, matrix_levels
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.backends.c.weights import LENGTH_BLOCK, round_up
from qcompile.ops import Softmax
from qcompile.passes.choose_kernels import choose_product
from qcompile.passes.fuse_attention import Attention
from qcompile.passes.place_tensors import natural
from qcompile.types import Array

BATCH_LOOPS = 4
"""Loops over matrices of a batch."""
TILE = 8
"""Rows of queries at a time: those of scores and weights stay in the cache, and keys and values
are read once for all of them."""
VECTOR = 16
"""Elements that vectors may write behind the last one of a row."""


def plan_token_attention(context: Context, step: Step, fused: Attention) -> None:
    """Rows of scores, their softmax, and its product with the values.

    Builds with taps keep scores and weights, which are tensors of the network.
    """
    scores, softmax, product = fused.scores, fused.softmax, fused.product
    step.inside = fused.inside
    ends = (*scores.inputs, product.inputs[1], product.output)
    *names, y = (
        (context.write if value == product.output else context.read)(step, name, value)
        for name, value in zip("qkvy", ends, strict=True)
    )
    shape, out = context.type(scores.output).shape, context.type(product.output).shape
    strides = [
        broadcast_strides(context.strides(value), context.type(value).shape, (*out[:-2], 0, 0))
        for value in ends
    ]
    fields: dict[str, int | tuple[int, ...]] = {}
    for name, value in zip("qkvy", ends, strict=True):
        fields[f"{name}_row"], fields[f"{name}_step"] = context.strides(value)[-2:]
    struct = "token_attention_shape"
    masked = len(softmax.inputs) > 1
    if masked:
        struct = "masked_token_attention_shape"
        mask = _mask(context, softmax)
        strides.append(broadcast_strides(natural(mask.ndim).strides(mask.shape), mask.shape, shape))
        fields["mask_row"] = strides[-1][-2]
        names.append(step.table("mask", "uint8_t", mask, Role.TABLE, "takes part"))
    walk = View(out[:-2], tuple(item[:-2] for item in strides)).collapsed().padded(BATCH_LOOPS)
    fields |= dict(zip(("q", "k", "v", "y", "mask"), walk.strides, strict=False))
    depth = context.type(ends[0]).shape[-1]
    described = step.shape(
        struct,
        "shape",
        size=walk.sizes,
        queries=shape[-2],
        keys=shape[-1],
        depth=depth,
        values=out[-1],
        levels=softmax.levels,
        **fields,
    )
    names.append(
        step.table(
            "powers", "uint16_t", softmax.table, Role.TABLE, "2**15 exp(-difference * scale)"
        )
    )
    finish = (
        plan_epilogue(context, step, scores, shape[-1], "score_"),
        plan_epilogue(context, step, product, out[-1]),
    )
    kept = [
        step.keep(name, context.ctype(value), context.type(value).shape, value)
        for name, value in (("kept_scores", scores.output), ("kept_weights", softmax.output))
    ]
    choices = [
        choose_product(op, [context.type(value) for value in op.inputs]) for op in (scores, product)
    ]
    types = [context.ctype(value) for value in (*ends, scores.output, softmax.output)]
    suffix = "_masked" if masked else ""
    keys, length = (round_up(size, LENGTH_BLOCK) for size in (shape[-1], depth))
    for level in matrix_levels(context.levels):
        first = Products(scores, choices[0], finish[0], level)
        second = Products(product, choices[1], finish[1], level)
        packs = first.pack(types[1]), second.pack(types[2])
        row = kernel(
            "softmax_row_x86" if second.pairs else "softmax_row",
            [types[4], second.choice.line],
            suffix=suffix,
            x=types[4],
            y=second.choice.line,
            masked=masked,
        ).at(level)
        item = kernel(
            "token_attention",
            [*types, first.choice.line, second.choice.line],
            requires=[*packs, first.dot, second.dot, first.epilogue, second.epilogue, row],
            suffix=f"_{first.epilogue.function}_{second.epilogue.function}{suffix}",
            struct=struct,
            q=types[0],
            k=types[1],
            v=types[2],
            y=types[3],
            codes=types[4],
            kept=types[5],
            line=first.choice.line,
            sums=first.choice.sums,
            weight=second.choice.line,
            totals=second.choice.sums,
            masked=masked,
            tile=TILE,
            key_block=first.block,
            value_block=second.block,
            chunk=CHUNK,
            pack_keys=packs[0].function,
            pack_values=packs[1].function,
            dot_scores=first.dot.function,
            dot_values=second.dot.function,
            softmax=row.function,
            score_epilogue=first.epilogue.function,
            score_constants=constants_type(finish[0]),
            epilogue=second.epilogue.function,
            constants=constants_type(finish[1]),
        ).at(level)
        variant = step.variant(level)
        columns, outputs = first.columns(shape[-1]), second.columns(out[-1])
        work = [
            variant.scratch(first.choice.line, "queries", TILE * length),
            variant.scratch(first.choice.line, "keys", columns * length),
            variant.scratch(first.choice.sums, "sums", TILE * min(columns, CHUNK)),
            variant.scratch(types[4], "scores", TILE * keys),
            variant.scratch("uint32_t", "exponentials", keys + VECTOR),
            variant.scratch(second.choice.line, "weights", TILE * keys + VECTOR),
            variant.scratch(second.choice.line, "values", outputs * keys),
            variant.scratch(second.choice.sums, "totals", TILE * min(outputs, CHUNK)),
            variant.scratch(types[3], "rows", TILE * out[-1]),
        ]
        variant.calls.append(
            f"{variant.use(item)}({described}, {', '.join(names)}, &score_epilogue, &epilogue, "
            f"{y}, {', '.join(work)}, {', '.join(kept)});"
        )


def _mask(context: Context, softmax: Softmax) -> Array:
    """1 for what takes part, along the keys even where all of a row do alike."""
    data = context.graph.constants[softmax.inputs[1]] != 0
    keys = context.type(softmax.output).shape[-1]
    return np.ascontiguousarray(np.broadcast_to(data, (*data.shape[:-1], keys)), dtype=np.uint8)
