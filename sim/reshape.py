"""Another shape for the same elements."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Reshape
from qcompile.types import Array, TensorType


def run(op: Reshape, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type."""
    return inputs[0].reshape(op.shape)
