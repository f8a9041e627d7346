"""Self-attention of every pixel over a window around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True)
class AttentionWidths:
    """The stated widths of one integer attention.

    A key is ``k * 2**key_bits + r``, with r the integer relative position embedding. A score is the
    exact sum of q * key over the channels of a head. Where `largest` is a head's largest score in
    the window, a score stands for ``powers[min((largest - score + half) >> index_shift, last)]``,
    half = 2**index_shift / 2 (0 without a shift). `powers` holds
    round(2**15 * exp(-i * 2**index_shift * unit of the scores)).
    """

    key_bits: int
    index_shift: int
    powers: tuple[int, ...]
    levels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAttention2d(SumOp):
    """Inputs: queries q [1, C, Ho, Wo], keys k [1, C, H, W], values v [1, D, H, W], constant
    relative embedding r [C, kh, kw], and before lowering constant scale [D] and shift [D].
    Either both or none of the last
    two. Output [1, D, Ho, Wo], Ho = H + pads - kh + 1.

    Heads are groups of neighbouring channels, alike for C and D. With p the positions of the window
    of pixel i,

        y_i = sum_p softmax_p(score_scale * sum_c q_ci * (k_cp + r_cp)) * v_p

    c being the channels of a head. As many heads as channels means a softmax for every channel
    (mode `per_channel`). Positions outside of the image have k = 0 and v = 0; they take part in the
    softmax, with their embeddings as keys. Stride 1.

    Integer form (docs/attention.md): scores are exact; `AttentionWidths` says which exponential e
    each of them has, and with E their sum over the window the weight of a position is
    a = floor((e * levels + floor(E / 2)) / E), as in `Softmax`. The operator's sum is that of
    a * v, in units of the scale of v / levels; one epilogue rounds it. Scale and shift are there.
    """

    kernel: tuple[int, int]
    pads_begin: tuple[int, int]
    pads_end: tuple[int, int]
    heads: int = 1
    score_scale: float = 1.0
    widths: AttentionWidths | None = None

    @property
    def positions(self) -> int:
        """Of the window."""
        return self.kernel[0] * self.kernel[1]

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        q, k, v, relative = shapes[:4]
        given = [list(shape) for shape in shapes]
        if any(len(shape) != 4 for shape in (q, k, v)) or k[2:] != v[2:] or q[1] != k[1]:
            raise ShapeError(
                f"{self.label()}: queries, keys and values of shapes {given[:3]} do not fit"
            )
        if len(shapes) == 5:
            raise ShapeError(f"{self.label()}: has a scale, but no shift")
        if self.heads < 1 or q[1] % self.heads or v[1] % self.heads:
            raise ShapeError(
                f"{self.label()}: {q[1]} and {v[1]} channels are no multiples of {self.heads} heads"
            )
        if relative != (q[1], *self.kernel) or any(shape != (v[1],) for shape in shapes[4:]):
            raise ShapeError(
                f"{self.label()}: parameters of shapes {given[3:]} do not fit {q[1]} channels of "
                f"keys, {v[1]} of values and a window of {list(self.kernel)}"
            )
        pads = zip(self.pads_begin, self.pads_end, strict=True)
        sizes = tuple(
            size + sum(pad) - window + 1
            for size, pad, window in zip(k[2:], pads, self.kernel, strict=True)
        )
        if min(sizes) < 1 or q[2:] != sizes:
            raise ShapeError(
                f"{self.label()}: keys of shape {given[1]} give {list(sizes)} windows of "
                f"{list(self.kernel)}, but there are queries of shape {given[0]}"
            )
        return (q[0], v[1], *sizes)

    def key_reach(self, k: TensorType, relative: Array) -> Range:
        """Every key: an element of k, or 0 outside of the image, plus an embedding."""
        assert self.widths is not None
        inside = k.codes.union(Range(0, 0)).scaled(1 << self.widths.key_bits)
        return inside + Range(int(relative.min()), int(relative.max()))

    def score_reach(self, q: TensorType, k: TensorType, relative: Array) -> Range:
        """Every score of a head, and every partial sum of one in any order."""
        assert self.widths is not None
        # By channel and position: embeddings differ.
        embedded = relative.astype(object).reshape(self.heads, -1, self.positions)
        keys = k.codes.union(Range(0, 0)).scaled(1 << self.widths.key_bits)
        ends = np.stack(
            [
                factor * (embedded + end)
                for factor in (q.codes.low, q.codes.high)
                for end in (keys.low, keys.high)
            ]
        )
        low = np.minimum(ends.min(axis=0), 0).sum(axis=1).min()
        high = np.maximum(ends.max(axis=0), 0).sum(axis=1).max()
        return Range(int(low), int(high))

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        """The weights of a window are at most levels + positions / 2 together: each is rounded."""
        assert self.widths is not None
        total = self.widths.levels + self.positions // 2
        return types[2].codes.union(Range(0, 0)).scaled(total)
