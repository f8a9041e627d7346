"""Scalar functions of real numbers; in the integer stage they have become look-up tables."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Pointwise
from qcompile.types import Array, TensorType


def run_float(op: Pointwise, inputs: Sequence[Array], output: TensorType) -> Array:
    """op.function(x)."""
    return op.function(inputs[0])
