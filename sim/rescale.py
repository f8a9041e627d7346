"""An activation alone."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import Rescale
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: Rescale, inputs: Sequence[Array], output: TensorType) -> Array:
    """activation(x)."""
    return finish_float(op, inputs[0].copy())


def run_integer(op: Rescale, inputs: Sequence[Array], output: TensorType) -> Array:
    """The epilogue alone."""
    return finish_integer(op, inputs[0].astype(integer_dtype(op)), output)
