"""Self-attention over windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qcompile.errors import GraphError
from qcompile.ops import LocalAttention2d
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import INT32, INT64, finish_integer, sum_range
from qcompile.types import Array, Range, TensorType

BAND_ELEMENTS = 1 << 22
"""About how many scores are held at once: images are walked in bands of rows."""


def run_float(op: LocalAttention2d, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real attention."""
    q, v = inputs[0], inputs[2]
    key, value = _padded(op, inputs[1]), _padded(op, v)
    result = np.empty(output.shape, q.dtype)
    for rows in _bands(op, output):
        scores = _scores(op, q, key, inputs[3], rows) * q.dtype.type(op.score_scale)
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
        result[:, :, rows] = _weighted(op, scores, value, rows)
    if len(inputs) > 4:
        result *= inputs[4].reshape(-1, 1, 1)
    return finish_float(op, result, inputs[5] if len(inputs) > 5 else None)


def run_integer(op: LocalAttention2d, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact scores and sums; weights as `AttentionWidths` states them."""
    sum_range(op)
    acc = np.empty(output.shape, np.int64)
    value = _padded(op, inputs[2].astype(np.int64))
    for rows, weights in _integer_weights(op, inputs, output):
        acc[:, :, rows] = _weighted(op, weights, value, rows)
    return finish_integer(op, acc, output)


def attention_map(op: LocalAttention2d, inputs: Sequence[Array], output: TensorType) -> Array:
    """The integer weights of every pixel: uint16 [heads, positions, Ho, Wo], of about `levels` in
    total for each head."""
    result = np.empty((op.heads, op.positions, *output.shape[2:]), np.uint16)
    for rows, weights in _integer_weights(op, inputs, output):
        result[:, :, rows] = weights[:, 0].swapaxes(0, 1)
    return result


def _integer_weights(
    op: LocalAttention2d, inputs: Sequence[Array], output: TensorType
) -> Iterator[tuple[slice, Array]]:
    """Rows of the output, and the weights [positions, batch, heads, rows, columns] there.

    Raises:
        GraphError: the operator is not lowered, or its scores exceed 64 bits.
    """
    widths = op.widths
    if widths is None:
        raise GraphError(f"{op.label()}: has no integer widths; lower the graph first")
    q: Array = inputs[0].astype(np.int64)
    relative: Array = inputs[3].astype(np.int64)
    key: Array = _padded(op, inputs[1].astype(np.int64) << widths.key_bits)
    largest_key = int(np.abs(key).max(initial=0)) + int(np.abs(relative).max(initial=0))
    channels = q.shape[1] // op.heads
    bound = int(np.abs(q).max(initial=0)) * largest_key * channels
    if not INT64.contains(Range(0, 2 * bound)):
        raise GraphError(f"{op.label()}: its scores exceed 64 bits; use fewer activation bits")
    if INT32.contains(Range(0, 2 * bound)):
        q, key, relative = (item.astype(np.int32) for item in (q, key, relative))
    powers = np.asarray(widths.powers, np.int64)
    for rows in _bands(op, output):
        scores = _scores(op, q, key, relative, rows).astype(np.int64)
        scores = scores.max(axis=0) - scores
        scores += (1 << widths.index_shift) >> 1
        scores >>= widths.index_shift
        weights = np.take(powers, np.minimum(scores, len(powers) - 1))
        total = weights.sum(axis=0)
        weights *= widths.levels
        weights += total >> 1
        weights //= total
        yield rows, weights


def _padded(op: LocalAttention2d, x: Array) -> Array:
    pads = zip(op.pads_begin, op.pads_end, strict=True)
    return np.pad(x, ((0, 0), (0, 0), *pads))


def _bands(op: LocalAttention2d, output: TensorType) -> Iterator[slice]:
    height, width = output.shape[2:]
    row = op.positions * op.heads * width * output.shape[0]
    step = max(1, BAND_ELEMENTS // row)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def _window(op: LocalAttention2d, x: Array, position: int, rows: slice, width: int) -> Array:
    """What a padded tensor has at one position of the windows of `rows`."""
    y, left = divmod(position, op.kernel[1])
    return x[:, :, rows.start + y : rows.stop + y, left : left + width]


def _scores(op: LocalAttention2d, q: Array, key: Array, relative: Array, rows: slice) -> Array:
    """Sums over the channels of each head: [positions, batch, heads, rows, columns]."""
    here = q[:, :, rows]
    batch, channels, height, width = here.shape
    result = np.empty((op.positions, batch, op.heads, height, width), q.dtype)
    embedded = relative.reshape(channels, op.positions)
    for position in range(op.positions):
        keys = _window(op, key, position, rows, width) + embedded[:, position].reshape(-1, 1, 1)
        keys *= here
        keys.reshape(batch, op.heads, -1, height, width).sum(
            axis=2, dtype=q.dtype, out=result[position]
        )
    return result


def _weighted(op: LocalAttention2d, weights: Array, value: Array, rows: slice) -> Array:
    """Sums of values over the window, [batch, D, rows, columns]."""
    _, batch, heads, height, width = weights.shape
    total = np.zeros((batch, heads, value.shape[1] // heads, height, width), weights.dtype)
    for position, weight in enumerate(weights):
        values = _window(op, value, position, rows, width)
        total += values.reshape(total.shape) * weight[:, :, None]
    return total.reshape(batch, -1, height, width)
