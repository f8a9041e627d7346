"""Product of two matrices, or of batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import BatchMatMul
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, matrix_dtype
from qcompile.types import Array, TensorType


def run_float(op: BatchMatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real product."""
    return finish_float(op, np.asarray(np.matmul(inputs[0], inputs[1])))


def run_integer(op: BatchMatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact sums."""
    dtype = matrix_dtype(op)
    acc = np.matmul(inputs[0].astype(dtype), inputs[1].astype(dtype))
    return finish_integer(op, np.asarray(acc), output)
