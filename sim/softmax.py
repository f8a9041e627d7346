"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Softmax
from qcompile.types import Array, TensorType


def run_float(op: Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real softmax."""
    x = inputs[0]
    if len(inputs) > 1:
        x = np.where(inputs[1] != 0, x, x.dtype.type(-np.inf))
    largest = x.max(axis=op.axis, keepdims=True)
    largest[np.isneginf(largest)] = 0
    result: Array = x - largest
    np.exp(result, out=result)
    total = result.sum(axis=op.axis, keepdims=True)
    total[total == 0] = 1
    result /= total
    return result


def run_integer(op: Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    """Differences from the maximum through the exponential table, then a rounded quotient."""
    x = inputs[0].astype(np.int64)
    takes_part = inputs[1] != 0 if len(inputs) > 1 else True
    least = np.iinfo(np.int64).min
    largest = x.max(axis=op.axis, keepdims=True, initial=least, where=takes_part)
    difference = np.where(takes_part, largest - x, 0)
    powers = np.take(np.asarray(op.table, dtype=np.int64), difference)
    powers *= takes_part
    total = powers.sum(axis=op.axis, keepdims=True)
    powers *= op.levels
    powers += total // 2
    powers //= np.maximum(total, 1)
    powers *= takes_part
    return np.asarray(powers.astype(output.integer.storage))
