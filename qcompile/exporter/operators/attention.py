"""Attention over windows, in operators that every runtime has."""

from __future__ import annotations

import numpy as np

from qcompile.exporter.scope import Scope
from qcompile.ops import LocalAttention2d


def local_attention(op: LocalAttention2d, scope: Scope) -> str:
    """Keys and values unfolded by a Slice for each position of the window, products, Softmax."""
    channels, values = scope.shape(0)[1], scope.shape(2)[1]
    height, width = scope.kind.shape[2:]
    count, heads = op.positions, op.heads
    keys = _unfolded(op, scope, 1, "k")
    relative = scope.parameter(3)
    assert relative is not None
    # By position, then channels: [1, positions, C, 1, 1].
    embeddings = relative.reshape(channels, count).T.reshape(1, count, channels, 1, 1)
    keys = scope.node("Add", keys, scope.constant("relative", embeddings), part="keys")
    products = scope.node("Mul", _unsqueezed(scope, scope.real(0), "q"), keys, part="products")
    split = scope.constant("heads", (1, count, heads, channels // heads, height, width), "int64")
    products = scope.node("Reshape", products, split, part="by_head")
    scores = _sum(scope, products, 3, "scores")
    if op.score_scale != 1.0:
        factor = scope.constant("score_scale", op.score_scale)
        scores = scope.node("Mul", scores, factor, part="scaled")
    weights = scope.node("Softmax", scores, part="weights", axis=1)
    axis = scope.constant("channel", [3], "int64")
    weights = scope.node("Unsqueeze", weights, axis, part="by_channel")
    split = scope.constant(
        "value_heads", (1, count, heads, values // heads, height, width), "int64"
    )
    by_head = scope.node("Reshape", _unfolded(op, scope, 2, "v"), split, part="v_by_head")
    weighted = scope.node("Mul", weights, by_head, part="weighted")
    shape = scope.constant("shape", (1, values, height, width), "int64")
    total = _sum(scope, weighted, 1, "sums")
    gain, shift = scope.parameter(4), scope.parameter(5)
    if gain is None or shift is None:
        return scope.node("Reshape", total, shape)
    result = scope.node("Reshape", total, shape, part="attended")
    result = scope.node("Mul", result, scope.by_channel("gain", gain.tolist(), 1, 4), part="gain")
    return scope.node("Add", result, scope.by_channel("shift", shift.tolist(), 1, 4))


def _unfolded(op: LocalAttention2d, scope: Scope, index: int, name: str) -> str:
    """What each position of the windows sees of an input: [1, positions, C, Ho, Wo]."""
    x = scope.real(index)
    if any((*op.pads_begin, *op.pads_end)):
        pads = scope.constant(f"{name}_pads", (0, 0, *op.pads_begin, 0, 0, *op.pads_end), "int64")
        x = scope.node("Pad", x, pads, part=f"{name}_padded")
    size = np.array(scope.kind.shape[2:])
    axes = scope.constant(f"{name}_axes", (2, 3), "int64")
    views = []
    for position in range(op.positions):
        start = np.array(divmod(position, op.kernel[1]))
        part = f"{name}_{position}"
        ends = (
            scope.constant(f"{part}_start", start, "int64"),
            scope.constant(f"{part}_end", start + size, "int64"),
        )
        view = scope.node("Slice", x, *ends, axes, part=part)
        views.append(_unsqueezed(scope, view, f"{part}_at"))
    return scope.node("Concat", *views, part=f"{name}_unfolded", axis=1)


def _unsqueezed(scope: Scope, x: str, part: str) -> str:
    return scope.node("Unsqueeze", x, scope.constant(f"{part}_axis", [1], "int64"), part=part)


def _sum(scope: Scope, x: str, axis: int, part: str) -> str:
    return scope.node(
        "ReduceSum", x, scope.constant(f"{part}_axes", [axis], "int64"), part=part, keepdims=0
    )
