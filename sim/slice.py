"""A regular part of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Slice
from qcompile.types import Array, TensorType


def run(op: Slice, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type; the result is a view."""
    parts = []
    for start, size, step in zip(op.starts, op.sizes, op.steps, strict=True):
        stop: int | None = start + size * step
        if stop is not None and stop < 0:
            stop = None  # a negative stop would count from the end
        parts.append(slice(start, stop, step))
    result: Array = inputs[0][tuple(parts)]
    return result
