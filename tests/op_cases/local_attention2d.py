from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import AttentionWidths, LocalAttention2d
from qcompile.types import IntType, TensorType
from tests.op_cases.build import CODES, STYLES, activation, codes, pick, several, some, sum_case
from tests.op_cases.case import OpCase

WIDE = (16, 17, 31, 63, 64, 65, 83, 127, 128)
"""Widths of rows that are computed in runs of pixels."""


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index in range(18 + len(WIDE)):
        heads = some(rng, 1, 4)
        channels = heads * some(rng, 1, 5)
        by_channel = index % 3 == 0 and index < 18
        values = channels if by_channel else heads * some(rng, 1, 4)
        kernel = (some(rng, 1, 3), pick(rng, (1, 3, 5)))
        pads = tuple(size // 2 for size in kernel) if index % 4 else several(rng, 2, 0, 3)
        ends = tuple(size // 2 for size in kernel) if index % 4 else several(rng, 2, 0, 3)
        size = tuple(k + some(rng, 0, 3) for k in kernel)
        if index >= 18:
            size = (size[0], WIDE[index - 18] + kernel[1] - 1 - pads[1] - ends[1])
        out = [s + a + b - k + 1 for s, a, b, k in zip(size, pads, ends, kernel, strict=True)]
        types = {
            "q": activation(pick(rng, CODES), 1, channels, *out),
            "k": activation(pick(rng, CODES), 1, channels, *size),
            "v": activation(pick(rng, CODES), 1, values, *size),
        }
        element = IntType(pick(rng, (2, 6, 10, 17)))
        relative = TensorType((channels, *kernel), element)
        constants = {"r": codes(rng, relative)}
        shift = some(rng, 0, 8)
        step = float(rng.uniform(0.005, 1.0)) if index % 5 else 20.0
        count = min(2048, math.ceil(16 * math.log(2) / step) + 1)
        powers = tuple(math.floor(2**15 * math.exp(-i * step) + 0.5) for i in range(count))
        op = LocalAttention2d(
            name="attention",
            inputs=("q", "k", "v", "r"),
            outputs=("y",),
            kernel=(kernel[0], kernel[1]),
            pads_begin=(pads[0], pads[1]),
            pads_end=(ends[0], ends[1]),
            heads=channels if by_channel else heads,
            widths=AttentionWidths(some(rng, 0, 3), shift, powers, pick(rng, (255, 1 << 14))),
        )
        fill = ("random", "random", "random", "low", "high")[index % 5]
        named = {**types, "r": relative}
        feeds = {name: codes(rng, kind, fill) for name, kind in types.items()}
        style = STYLES[index % len(STYLES)]
        name = f"local_attention_{index}"
        yield sum_case(rng, name, op, named, constants, style, fill, feeds=feeds)
