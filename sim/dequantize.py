"""Codes to real numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Dequantize
from qcompile.types import Array, TensorType


def run_float(op: Dequantize, inputs: Sequence[Array], output: TensorType) -> Array:
    """One float32 multiplication."""
    x = inputs[0].astype(np.float32)
    x *= np.float32(op.scale)
    return x
