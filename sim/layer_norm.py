"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.errors import GraphError
from qcompile.ops import LayerNorm
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, sum_range
from qcompile.sim.group_norm import normalise_rows
from qcompile.types import Array, TensorType, per_channel


def run_float(op: LayerNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    """Statistics in float64, the result in the dtype of the input."""
    x = inputs[0]
    centred = x - x.mean(axis=op.axis, dtype=np.float64, keepdims=True)
    variance = np.square(centred).mean(axis=op.axis, keepdims=True)
    centred /= np.sqrt(variance + op.epsilon)
    if len(inputs) > 1:
        centred *= per_channel(inputs[1].tolist(), "float64", op.axis, x.ndim)
    return finish_float(op, centred.astype(x.dtype), inputs[2] if len(inputs) > 2 else None)


def run_integer(op: LayerNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    """The formula of `NormWidths` for every row.

    Raises:
        GraphError: an intermediate value needs more than 64 bits.
    """
    sum_range(op)
    if op.widths is None:
        raise GraphError(f"{op.label()}: has no integer widths; lower the graph first")
    moved = np.moveaxis(inputs[0], op.axis, -1)
    acc = moved.reshape(-1, moved.shape[-1]).astype(np.int64)
    normalise_rows(op, op.widths, acc)
    return finish_integer(op, np.moveaxis(acc.reshape(moved.shape), -1, op.axis).copy(), output)
