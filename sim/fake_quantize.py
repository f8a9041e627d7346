"""Rounding to a grid of real numbers, as other tools compute it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import FakeQuantize
from qcompile.ops.fake_quantize import rounded
from qcompile.types import Array, TensorType


def run_float(op: FakeQuantize, inputs: Sequence[Array], output: TensorType) -> Array:
    """Float32 throughout: a division, the rounding, the clamp and a product."""
    x = inputs[0]
    scale = x.dtype.type(op.scale)
    if op.binary:
        return np.asarray(np.where(x >= 0, scale, -scale))
    with np.errstate(over="ignore"):
        codes = rounded(x / scale, op.rounding)
    np.clip(codes, x.dtype.type(op.low), x.dtype.type(op.high), out=codes)
    codes *= scale
    return codes
