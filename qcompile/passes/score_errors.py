"""How much the scores of local attention would lose without each of its queries' channels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qcompile.graph import Graph
from qcompile.ops import LocalAttention2d
from qcompile.passes.channel_classes import Channel, loses_heads
from qcompile.types import Array

TINY = 1e-20


def scored_attention(graph: Graph) -> tuple[LocalAttention2d, ...]:
    """Local attention that loses channels of its queries, rather than heads."""
    return tuple(
        op
        for op in graph.ops
        if isinstance(op, LocalAttention2d)
        and not loses_heads(graph, op)
        and not any(graph.is_constant(name) for name in op.inputs[:3])
    )


@dataclass
class ScoreErrors:
    """The share of the variance of a head's scores within a window that each channel contributes.

    With t[c, p] = q[c] * (k[c, p] + r[c, p]) less its mean over the window, which no softmax sees::

        error[c] = mean(t[c, p] ** 2)  /  mean((sum of t[c, p] over the channels of the head) ** 2)

    the means being over the positions p of windows and over pixels. Heads count alike.
    """

    op: LocalAttention2d
    relative: Array
    parts: Array | float = 0.0
    wholes: Array | float = 0.0
    waiting: dict[str, Array] = field(default_factory=dict)

    def add(self, value: str, data: Array, pixels: int, generator: np.random.Generator) -> None:
        """Queries or keys [1, C, H, W] of an image; `pixels` of them are looked at when both are
        there."""
        q, k = self.op.inputs[:2]
        if value in (q, k):
            self.waiting[value] = data
        if q in self.waiting and k in self.waiting:
            self._add(self.waiting[q][0], self.waiting[k][0], pixels, generator)
            self.waiting.clear()

    def _add(self, q: Array, k: Array, pixels: int, generator: np.random.Generator) -> None:
        op = self.op
        rows, columns = (generator.integers(0, size, pixels) for size in q.shape[1:])
        padded = np.pad(k, ((0, 0), *zip(op.pads_begin, op.pads_end, strict=True)))
        windows = np.stack(
            [
                padded[:, rows + y, columns + x]
                for y in range(op.kernel[0])
                for x in range(op.kernel[1])
            ],
            axis=-1,
        ).astype("float64")
        keys = windows + self.relative.reshape(len(q), 1, -1)
        terms = q[:, rows, columns, None] * keys
        terms -= terms.mean(axis=-1, keepdims=True)
        scores = terms.reshape(op.heads, -1, *terms.shape[1:]).sum(axis=1)
        self.parts = self.parts + np.square(terms).sum(axis=(1, 2))
        self.wholes = self.wholes + np.square(scores).sum(axis=(1, 2))

    def errors(self) -> dict[Channel, float]:
        """By channel of the queries."""
        parts = np.asarray(self.parts).reshape(self.op.heads, -1)
        wholes = np.maximum(np.asarray(self.wholes), TINY)[:, None]
        shares = (parts / wholes / self.op.heads).reshape(-1)
        return {(self.op.inputs[0], index): share for index, share in enumerate(shares.tolist())}
