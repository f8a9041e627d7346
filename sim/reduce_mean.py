"""Mean over whole axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import ReduceMean
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: ReduceMean, inputs: Sequence[Array], output: TensorType) -> Array:
    """Means of real numbers."""
    x = inputs[0]
    # float64: a long float32 sum would lose digits that onnxruntime keeps
    mean = np.asarray(np.mean(x, axis=op.axes, dtype=np.float64, keepdims=op.keepdims))
    return finish_float(op, mean.astype(x.dtype))


def run_integer(op: ReduceMean, inputs: Sequence[Array], output: TensorType) -> Array:
    """Sums; the divisor is in the epilogue."""
    acc = np.sum(inputs[0], axis=op.axes, dtype=integer_dtype(op), keepdims=op.keepdims)
    return finish_integer(op, np.asarray(acc), output)
