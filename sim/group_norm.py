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
    """The formula of `NormWidths`: statistics of a group in Python integers, elements in int64.

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
    """Replaces codes [rows, N] in int64 by their normalised values, row by row.

    Raises:
        GraphError: an intermediate value needs more than 64 bits.
    """
    count = acc.shape[1]
    for row in acc:
        low, high = int(row.min()), int(row.max())
        if not INT64.contains(Range(0, count * max(low * low, high * high, 1))):
            raise GraphError(f"{op.label()}: the sum of {count} squares exceeds 64 bits")
        first = int(row.sum())
        second = int(np.dot(row, row))
        variance = count * second - first * first
        root = math.isqrt((variance << (2 * widths.root_bits)) + widths.epsilon)
        if root == 0:
            raise GraphError(f"{op.label()}: the integer epsilon is 0 and a group is constant")
        inverse = (1 << widths.inverse_bits) // root
        largest = max(abs(count * low - first), abs(count * high - first))
        if not INT64.contains(Range(0, max(largest * inverse, inverse))):
            raise GraphError(
                f"{op.label()}: products reach {largest * inverse}, beyond 64 bits; "
                f"use fewer activation bits"
            )
        row *= count
        row -= first
        row *= inverse
        row >>= widths.drop_bits
