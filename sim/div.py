"""Quotient of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Div
from qcompile.sim.activation import finish_float
from qcompile.types import Array, TensorType


def run_float(op: Div, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real quotient; division by zero follows IEEE 754."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Array = inputs[0] / inputs[1]
    return finish_float(op, quotient)
