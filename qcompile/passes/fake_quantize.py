"""Real numbers as the integer network would hold them."""

from __future__ import annotations

import numpy as np

from qcompile.types import Array, CodeLimits, IntType, TensorType


def on_grid(data: Array, kind: TensorType) -> Array:
    """`data` rounded to the codes of a per-tensor quantized type and back (float32); as it is
    where the type is float or a plain integer."""
    if kind.quantization is None or not isinstance(kind.element, IntType):
        return data
    return quantized(data, kind.quantization.scale[0], kind.element, kind.limits)


def quantized(
    values: Array, scale: float, element: IntType, limits: CodeLimits | None = None
) -> Array:
    """`values` [N, C, ...] rounded half up to codes of `element` within `limits`, times `scale`."""
    inverse = np.float32(min(1 / scale, float(np.finfo(np.float32).max)))
    with np.errstate(over="ignore"):  # of subnormal scales: clipped below
        codes: Array = np.floor(values * inverse + np.float32(0.5))
    low: float | Array = element.low
    high: float | Array = element.high
    if limits is not None:
        shape = [1] * values.ndim
        shape[1] = len(limits.low)
        low = np.asarray(limits.low, np.float32).reshape(shape)
        high = np.asarray(limits.high, np.float32).reshape(shape)
    np.clip(codes, low, high, out=codes)
    codes *= np.float32(scale)
    return codes
