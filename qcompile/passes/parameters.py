"""Reading and writing the constant parameters of operators in float passes."""

from __future__ import annotations

import numpy as np

from qcompile.graph import Graph, Rewriter
from qcompile.types import Array, TensorType


def exact(graph: Graph, name: str) -> Array:
    """A constant in double precision, so that products of parameters round only once."""
    return graph.constants[name].astype("float64")


def vector(graph: Graph, inputs: tuple[str, ...], index: int, size: int, default: float) -> Array:
    """Parameter `index` of an operator as a double vector [size]; `default` where it has none."""
    if index < len(inputs):
        return exact(graph, inputs[index])
    return np.full(size, default)


def add_float(rewriter: Rewriter, base: str, data: Array) -> str:
    """Adds a float32 constant and returns its name."""
    rounded = np.ascontiguousarray(data, dtype="float32")
    return rewriter.add_constant(base, rounded, TensorType(rounded.shape))
