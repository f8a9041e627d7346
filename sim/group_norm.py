"""Group and instance normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcompile.errors import GraphError
from qcompile.ops import GroupNorm, NormWidths, SumOp
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import INT64, finish_integer, sum_range
from qcompile.types import Array, Range, TensorType


def run_float(op: GroupNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    """Statistics in float64, the result in the dtype of the input."""
    x = inputs[0]
    images, channels = x.shape[:2]
    rows = x.reshape(images, op.groups, -1)
    mean = rows.mean(axis=2, dtype=np.float64, keepdims=True)
    centred = rows - mean  # float64: biased variance without cancellation
    variance = np.einsum("ngk,ngk->ng", centred, centred)[..., None] / rows.shape[2]
    inverse = 1.0 / np.sqrt(variance + op.epsilon)
    # Scale and inverse deviation meet in float64, per channel; then float32 as everywhere.
    gain = np.repeat(inverse[..., 0], channels // op.groups, axis=1)
    if len(inputs) > 1:
        gain = gain * inputs[1].astype(np.float64)
    spread = (images, channels, *(1,) * (x.ndim - 2))
    result = (centred.reshape(x.shape) * gain.reshape(spread)).astype(x.dtype)
    return finish_float(op, result, inputs[2] if len(inputs) > 2 else None)


def run_integer(op: GroupNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    """The formula of `NormWidths`: roots in Python integers, the rest in int64.

    Raises:
        GraphError: an intermediate value needs more than 64 bits.
    """
    sum_range(op)
    widths = op.widths
    if widths is None:
        raise GraphError(f"{op.label()}: has no integer widths; lower the graph first")
    x = inputs[0]
    acc = x.reshape(x.shape[0] * op.groups, -1).astype(np.int64)
    normalise_rows(op, widths, acc)
    return finish_integer(op, acc.reshape(x.shape), output)


def normalise_rows(op: SumOp, widths: NormWidths, acc: Array) -> None:
    """Replaces codes [rows, N] in int64 by their normalised values.

    Raises:
        GraphError: an intermediate value needs more than 64 bits.
    """
    count = acc.shape[1]
    low, high = acc.min(axis=1), acc.max(axis=1)
    square = max(int(low.min()) ** 2, int(high.max()) ** 2, 1)
    if not INT64.contains(Range(0, count * square)):
        raise GraphError(f"{op.label()}: the sum of {count} squares exceeds 64 bits")
    sums, squares = acc.sum(axis=1), np.einsum("rn,rn->r", acc, acc)
    spreads = np.maximum(abs(count * low - sums), abs(count * high - sums))
    inverses = np.empty_like(sums)
    # Variances and what the root is taken of have more than 64 bits where rows are long.
    for row, (first, second) in enumerate(zip(sums.tolist(), squares.tolist(), strict=True)):
        variance = count * second - first * first
        root = math.isqrt((variance << (2 * widths.root_bits)) + widths.epsilon)
        if root == 0:
            raise GraphError(f"{op.label()}: the integer epsilon is 0 and a group is constant")
        inverse = (1 << widths.inverse_bits) // root
        largest = int(spreads[row]) * inverse
        if not INT64.contains(Range(0, max(largest, inverse))):
            raise GraphError(
                f"{op.label()}: products reach {largest}, beyond 64 bits; use fewer activation bits"
            )
        inverses[row] = inverse
    acc *= count
    acc -= sums[:, None]
    acc *= inverses[:, None]
    acc >>= widths.drop_bits
