"""Product with a constant matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import MatMul
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, matrix_dtype
from qcompile.types import Array, TensorType


def run_float(op: MatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real product."""
    bias = inputs[2] if len(inputs) > 2 else None
    return finish_float(op, accumulate(inputs[0], inputs[1]), bias)


def run_integer(op: MatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact sums."""
    dtype = matrix_dtype(op)
    acc = accumulate(inputs[0].astype(dtype), inputs[1].astype(dtype))
    return finish_integer(op, acc, output)


def accumulate(x: Array, weights: Array) -> Array:
    """The sums [..., N] of x [..., K] and weights [K, N]."""
    return np.asarray(np.matmul(x, weights))
