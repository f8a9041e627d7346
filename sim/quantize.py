"""Real numbers to codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Quantize
from qcompile.types import Array, TensorType, per_channel


def run_integer(op: Quantize, inputs: Sequence[Array], output: TensorType) -> Array:
    """Two rounded float64 operations, then floor and clamp; NaN is code 0."""
    x = inputs[0].astype(np.float64)
    x *= per_channel(op.inverse, "float64", 1 if x.ndim > 1 else 0, x.ndim)
    x += per_channel(op.offset, "float64", 1 if x.ndim > 1 else 0, x.ndim)
    np.floor(x, out=x)
    np.copyto(x, 0.0, where=np.isnan(x))
    np.clip(x, float(op.low), float(op.high), out=x)
    return x.astype(output.integer.storage)
