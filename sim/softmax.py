"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Softmax
from qcompile.types import Array, TensorType


def run_float(op: Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real softmax."""
    x = inputs[0]
    result: Array = x - x.max(axis=op.axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis=op.axis, keepdims=True)
    return result


def run_integer(op: Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    """Differences from the maximum through the exponential table, then a rounded quotient."""
    x = inputs[0].astype(np.int64)
    difference = x.max(axis=op.axis, keepdims=True) - x
    powers = np.take(np.asarray(op.table, dtype=np.int64), difference)
    total = powers.sum(axis=op.axis, keepdims=True)
    powers *= op.levels
    powers += total // 2
    powers //= total
    return np.asarray(powers.astype(output.integer.storage))
