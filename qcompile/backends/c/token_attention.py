"""The planner of attention over tokens: two products and the softmax between them in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.context import Context, View
from qcompile.backends.c.elementwise import broadcast_strides
from qcompile.backends.c.epilogues import constants_type, plan_epilogue
from qcompile.backends.c.levels import Level
from qcompile.backends.c.matrices import CHUNK, Products, epilogue_at, matrix_levels
from qcompile.backends.c.program import Kernel, Role, Setting, Step, Variant, kernel
from qcompile.backends.c.weights import LENGTH_BLOCK, round_up
from qcompile.ops import SumOp
from qcompile.passes.choose_kernels import choose_product, sums_type
from qcompile.passes.fuse_attention import Attention
from qcompile.passes.place_tensors import natural
from qcompile.types import Array, Shape

BATCH_LOOPS = 4
"""Loops over matrices of a batch."""
TILE = 8
"""Rows of queries at a time: those of scores and weights stay in the cache, and keys and values
are read once for all of them."""
SMALL_TILE = 2
"""For programs without SIMD kernels, whose memory is short: as many as are multiplied at once."""
VECTOR = 16
"""Elements that vectors may write behind the last one of a row."""


@dataclass(frozen=True)
class _Sizes:
    """Of the matrices of one batch: queries and keys, their length, elements of a value."""

    queries: int
    keys: int
    depth: int
    values: int


def plan_token_attention(context: Context, step: Step, fused: Attention) -> None:
    """Rows of scores, their softmax, and its product with the values.

    Builds with taps keep scores and weights, which are tensors of the network.
    """
    step.inside = fused.inside
    scores, bias, softmax, product = fused.scores, fused.bias, fused.softmax, fused.product
    ends = (*scores.inputs, fused.values, product.output)
    names = [context.read(step, name, value) for name, value in zip("qkv", ends[:3], strict=True)]
    y = context.write(step, "y", product.output)
    shape = context.type(softmax.output).shape
    rows = [context.strides(value)[-2:] for value in ends]
    if fused.turn is not None:
        # Values and result lie the other way round: tokens along the last axis.
        rows[2:] = [pair[::-1] for pair in rows[2:]]
    out = context.type(product.output).shape
    sizes = _Sizes(
        shape[-2],
        shape[-1],
        context.type(ends[0]).shape[-1],
        out[-1] if fused.turn is None else out[-2],
    )
    strides = {
        name: broadcast_strides(context.strides(value), context.type(value).shape, shape)
        for name, value in zip("qkvy", ends, strict=True)
    }
    fields: dict[str, int | tuple[int, ...]] = {}
    for name, (row, along) in zip("qkvy", rows, strict=True):
        fields |= {f"{name}_row": row, f"{name}_step": along}
    beside = _beside(context, step, fused, sizes.keys)
    for name, (pointer, lengths) in beside.items():
        strides[name] = broadcast_strides(natural(len(lengths)).strides(lengths), lengths, shape)
        fields[f"{name}_row"] = strides[name][-2]
        names.append(pointer)
    walk = View(shape[:-2], tuple(item[:-2] for item in strides.values()))
    walk = walk.collapsed().padded(BATCH_LOOPS)
    fields |= dict(zip(strides, walk.strides, strict=True))
    if bias is not None:
        first = bias.weights if bias.inputs[0] == scores.output else bias.weights[::-1]
        fields["bias_weights"] = tuple(first)
    struct = "_".join([*beside, "token_attention_shape"])
    described = step.shape(
        struct,
        "shape",
        size=walk.sizes,
        queries=sizes.queries,
        keys=sizes.keys,
        depth=sizes.depth,
        values=sizes.values,
        levels=softmax.levels,
        **fields,
    )
    names.append(
        step.table(
            "powers", "uint16_t", softmax.table, Role.TABLE, "2**15 exp(-difference * scale)"
        )
    )
    sums: list[tuple[str, SumOp, int]] = [
        ("score_", scores, sizes.keys),
        ("", product, sizes.values),
    ]
    if bias is not None:
        sums.insert(1, ("bias_", bias, sizes.keys))
    finish = {prefix: plan_epilogue(context, step, op, count, prefix) for prefix, op, count in sums}
    names += [f"&{prefix}epilogue" for prefix in finish]
    tensors = {"scores": scores.output, "weights": softmax.output}
    if bias is not None:
        tensors = {"raw": scores.output, "scores": bias.output, "weights": softmax.output}
    kept = ["0"] * len(tensors)
    if context.keeps_scores:
        kept = [
            step.keep(f"kept_{name}", context.ctype(value), context.type(value).shape, value)
            for name, value in tensors.items()
        ]
    for level in matrix_levels(context.levels):
        variant = step.variant(level)
        item, work = _kernel(context, variant, fused, sizes, struct, list(beside), finish, level)
        arguments = [described, *names, y, *work, *kept]
        variant.calls.append(f"{variant.use(item)}({', '.join(arguments)});")


def _beside(
    context: Context, step: Step, fused: Attention, keys: int
) -> dict[str, tuple[str, Shape]]:
    """Constants that broadcast to the scores: name -> (pointer, shape). Along the keys they are
    whole, even where all are alike."""
    found = {}

    def add(name: str, ctype: str, data: Array, role: Role, comment: str) -> None:
        whole = np.broadcast_to(data, (*data.shape[:-1], keys))
        found[name] = (step.table(name, ctype, whole, role, comment), whole.shape)

    if fused.bias is not None:
        (value,) = (value for value in fused.bias.inputs if value in context.graph.constants)
        data = np.atleast_1d(context.graph.constants[value])
        add("position", context.ctype(value), data, Role.WEIGHTS, "added to the scores")
    if len(fused.softmax.inputs) > 1:
        mask = np.atleast_1d(context.graph.constants[fused.softmax.inputs[1]] != 0)
        add("mask", "uint8_t", mask.astype(np.uint8), Role.TABLE, "takes part")
    return found


def _kernel(
    context: Context,
    variant: Variant,
    fused: Attention,
    sizes: _Sizes,
    struct: str,
    beside: Sequence[str],
    finish: dict[str, Kernel],
    level: Level | None,
) -> tuple[Kernel, list[str]]:
    """The kernel of one level, and the scratch memory that it takes."""
    scores, bias, softmax, product = fused.scores, fused.bias, fused.softmax, fused.product
    first, second = (
        Products(op, choose_product(op, [context.type(value) for value in op.inputs]), end, level)
        for op, end in ((scores, finish["score_"]), (product, finish[""]))
    )
    values = (*scores.inputs, fused.values, product.output, scores.output)
    q, k, v, y, raw = (context.ctype(value) for value in values)
    codes, kept = (context.ctype(value) for value in (softmax.inputs[0], softmax.output))
    line, weight = first.choice.line, second.choice.line
    masked = "mask" in beside
    packs = first.pack(k), second.pack(v)
    row = kernel(
        "softmax_row_x86" if second.pairs else "softmax_row",
        [codes, weight],
        suffix="_masked" if masked else "",
        x=codes,
        y=weight,
        masked=masked,
    ).at(level)
    requires = [*packs, first.dot, second.dot, first.epilogue, second.epilogue, row]
    settings: dict[str, Setting] = {}
    types = [q, k, v, y, raw, codes, kept, line, weight]
    if bias is not None:
        (value,) = (value for value in bias.inputs if value in context.graph.constants)
        item = epilogue_at(level, finish["bias_"], bias)
        requires.append(item)
        types.append(context.ctype(value))
        settings = {
            "position": context.ctype(value),
            "bias_sums": sums_type(bias),
            "bias_epilogue": item.function,
            "bias_constants": constants_type(finish["bias_"]),
        }
    tile = TILE if context.levels else SMALL_TILE
    ends = [
        item.function.removesuffix(f"_{level.value.suffix}" if level else "")
        for item in requires
        if item.template.startswith(("requantize", "thresholds"))
    ]
    item = Kernel(
        "token_attention",
        kernel("token_attention", types, suffix="_".join(["", *ends, *beside])).function,
        tuple(
            {
                "struct": struct,
                "q": q,
                "k": k,
                "v": v,
                "y": y,
                "raw": raw,
                "codes": codes,
                "kept": kept,
                "line": line,
                "sums": first.choice.sums,
                "weight": weight,
                "totals": second.choice.sums,
                "masked": masked,
                "biased": bias is not None,
                "tile": tile,
                "key_block": first.block,
                "value_block": second.block,
                "chunk": CHUNK,
                "pack_keys": packs[0].function,
                "pack_values": packs[1].function,
                "dot_scores": first.dot.function,
                "dot_values": second.dot.function,
                "softmax": row.function,
                "score_epilogue": first.epilogue.function,
                "score_constants": constants_type(finish["score_"]),
                "epilogue": second.epilogue.function,
                "constants": constants_type(finish[""]),
                **settings,
            }.items()
        ),
        tuple(requires),
    ).at(level)
    keys, depth = (round_up(size, LENGTH_BLOCK) for size in (sizes.keys, sizes.depth))
    columns, outputs = first.columns(sizes.keys), second.columns(sizes.values)
    memory = [
        (line, "queries", tile * depth),
        (line, "keys", columns * depth),
        (first.choice.sums, "sums", tile * min(columns, CHUNK)),
        (codes, "scores", tile * keys),
        ("uint32_t", "exponentials", keys + VECTOR),
        (weight, "weights", tile * keys + VECTOR),
        (weight, "values", outputs * keys),
        (second.choice.sums, "totals", tile * min(outputs, CHUNK)),
        (y, "rows", tile * sizes.values),
    ]
    if bias is not None:
        memory += [
            (raw, "raw", tile * keys),
            (sums_type(bias), "biased", tile * min(columns, CHUNK)),
        ]
    return item, [variant.scratch(*entry) for entry in memory]
