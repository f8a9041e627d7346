"""Where attention needs more bits than a convolution: scores, weights, and what norms read.

--abits 8, 64 keys   ->   scores 12 bits (into the table of exponentials)
                          attention weights 14 bits (into the product with the values)
                          x + attention(norm(x)) 16 bits (into norms and sums alone)
--abits 6            ->   values of local attention 8 bits (into sums weighed with 15 bits)
"""

from __future__ import annotations

from qcompile.graph import Graph, Op
from qcompile.lowering.published import TABLE_BITS
from qcompile.ops import (
    Add,
    BatchMatMul,
    Concat,
    Gather,
    LayerNorm,
    LocalAttention2d,
    MaskedFill,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)

WEIGHT_BITS = 15
"""Most bits of attention weights: with a sign they are 16-bit factors."""
SCORE_BITS = 4
"""What scores have beyond activations: an error of a score is a relative error of its weight."""
STREAM_BITS = 16
"""Sums that pass through all blocks of a transformer."""
VALUE_BITS, MORE_VALUE_BITS = 8, 2
"""Values of local attention have so many more than activations, up to 8: they are half of what a
layer of attention hands on, and meet weights of 15 bits, not those of a convolution."""

_MOVES = (Concat, Gather, MaskedFill, Reshape, Slice, Transpose)


def attention_bits(graph: Graph, op: Op, bits: int) -> int:
    """The bits that the output of `op` should have where activations have `bits`; not fewer.

    A weight of attention over N keys is 1 / N on average, so it takes log2(N) more bits for the
    same resolution. Nothing but a table reads scores, and nothing but norms and sums what runs
    through the blocks: no product gets wider with them.
    """
    readers = _readers(graph, op.output)
    if isinstance(op, Softmax):
        if readers and all(isinstance(reader, BatchMatMul) for reader in readers):
            keys = graph.output_type(op).shape[op.axis]
            return max(bits, min(WEIGHT_BITS, bits + (keys - 1).bit_length()))
        return bits
    if _ends_in(graph, op.output, Softmax):
        return max(bits, min(TABLE_BITS, bits + SCORE_BITS))
    if _ends_in(graph, op.output, LayerNorm):
        return max(bits, STREAM_BITS)
    if readers and all(_is_value(reader, op.output) for reader in readers):
        return max(bits, min(VALUE_BITS, bits + MORE_VALUE_BITS))
    return bits


def _is_value(reader: Op, value: str) -> bool:
    """Whether local attention makes weighted sums of a value, and nothing else."""
    named = isinstance(reader, LocalAttention2d) and reader.inputs[2] == value
    return named and reader.inputs.count(value) == 1


def _ends_in(graph: Graph, value: str, kind: type[Softmax] | type[LayerNorm]) -> bool:
    """Whether only sums and operators of `kind` read a value and what these sums make of it, until
    all of them have met such an operator."""
    readers = _readers(graph, value)
    if not readers or not all(isinstance(reader, Add | kind) for reader in readers):
        return False
    if any(isinstance(reader, kind) for reader in readers):
        return True
    return all(_ends_in(graph, reader.output, kind) for reader in readers)


def _readers(graph: Graph, value: str) -> list[Op]:
    """The operators that compute with a value, wherever it is moved (or masked) before."""
    found: list[Op] = []
    for op in graph.consumers[value]:
        found += _readers(graph, op.output) if isinstance(op, _MOVES) else [op]
    return found
