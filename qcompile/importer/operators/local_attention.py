"""LocalAttention2d of the domain `qcompile`, which `qcompile.train.local_attention` exports."""

from __future__ import annotations

import math

import numpy as np

from qcompile.importer.builder import MAX_SIZE, Builder
from qcompile.importer.node import Node
from qcompile.ops.local_attention2d import LocalAttention2d

MOST_POSITIONS = 1 << 12
"""Of a window."""


def convert_local_attention(node: Node, builder: Builder) -> None:
    """LocalAttention2d: queries, keys and values [1, C, H, W], and relative embeddings that
    broadcast to [C, kh, kw] (none: zeros)."""
    q, k, v = (builder.source(node, index) for index in range(3))
    shape = builder.shape(q)
    if len(shape) != 4:
        node.malformed(f"queries of shape {list(shape)} are no images")
    kernel = node.integers("kernel_shape", ())
    pads = node.integers("pads", tuple(size // 2 for size in kernel) * 2)
    sizes_fit = len(kernel) == 2 and all(size >= 1 for size in kernel)
    if not sizes_fit or math.prod(kernel) > MOST_POSITIONS:
        node.malformed(f"kernel_shape {list(kernel)[:16]} must be two positive numbers")
    if len(pads) != 4 or not all(0 <= pad <= MAX_SIZE for pad in pads):
        node.malformed(f"pads {list(pads)[:16]} must be 4 numbers that are not negative")
    mode = node.text("mode", "dot")
    if mode not in ("dot", "per_channel"):
        node.malformed(f"mode '{mode}' does not exist; use dot or per_channel")
    heads = node.integer("heads", 1)
    if mode == "per_channel":
        if heads not in (1, shape[1]):
            node.malformed(f"mode per_channel has a softmax for every channel, not {heads} heads")
        heads = shape[1]
    scale = node.real("scale", 1.0)
    if not (math.isfinite(scale) and scale > 0):
        node.malformed(f"scale {scale:g} must be positive")
    full = (shape[1], *kernel)
    relative = builder.optional(node, 3, "relative embeddings")
    if relative is None:
        data = np.zeros(full, np.float32)
    elif relative.dtype.kind != "f" or relative.ndim != 3:
        node.malformed(
            f"relative embeddings {relative.dtype}{list(relative.shape)} must be real numbers "
            f"that broadcast to {list(full)}"
        )
    else:
        try:
            data = np.broadcast_to(relative, full)
        except ValueError:
            node.malformed(
                f"relative embeddings of shape {list(relative.shape)} do not broadcast to "
                f"{list(full)}"
            )
    builder.emit(
        LocalAttention2d(
            name=node.name,
            inputs=(q, k, v, builder.constant(node, node.input(3) or f"{node.output}.r", data)),
            outputs=(node.output,),
            kernel=(kernel[0], kernel[1]),
            pads_begin=(pads[0], pads[1]),
            pads_end=(pads[2], pads[3]),
            heads=heads,
            score_scale=scale,
        )
    )
