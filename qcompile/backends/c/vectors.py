"""Test vectors of the testbench: inputs and expected outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.names import float_literal, integer_literal
from qcompile.errors import DataError
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, Dequantize, Lookup
from qcompile.types import Array

LARGEST_EMBEDDED = 64 * 1024
"""Bytes of vectors that go into a header; more are a binary file beside it."""


@dataclass(frozen=True)
class Vectors:
    """For every vector all inputs, then all outputs, in the model's order and storage types."""

    count: int
    arrays: tuple[tuple[Array, ...], ...]
    exact: bool

    @property
    def size(self) -> int:
        return sum(array.nbytes for row in self.arrays for array in row)

    @property
    def embeddable(self) -> bool:
        """Small enough for a header, and without the floats that C has no constants for."""
        finite = all(
            bool(np.isfinite(array).all())
            for row in self.arrays
            for array in row
            if array.dtype.kind == "f"
        )
        return finite and self.size <= LARGEST_EMBEDDED

    def binary(self) -> bytes:
        """All arrays after one another, little endian."""
        return b"".join(
            array.astype(array.dtype.newbyteorder("<")).tobytes()
            for row in self.arrays
            for array in row
        )

    def literals(self, index: int, tensor: int) -> str:
        """The initialiser of one array."""
        array = self.arrays[index][tensor].reshape(-1)
        if array.dtype.kind == "f":
            items = [float_literal(float(value)) for value in array]
        else:
            items = [integer_literal(int(value), f"{array.dtype.name}_t") for value in array]
        rows = [", ".join(items[i : i + 16]) for i in range(0, len(items), 16)]
        return ",\n    ".join(rows)


def lay_out(graph: Graph, vectors: Sequence[Mapping[str, Array]]) -> Vectors:
    """Brings the arrays into order and checks them.

    Raises:
        DataError: one is missing, or has another size than the graph says.
    """
    rows = []
    for index, vector in enumerate(vectors):
        row = []
        for value in (*graph.inputs, *dict.fromkeys(graph.outputs)):
            kind = graph.types[value]
            if value not in vector:
                raise DataError(f"test vector {index}: has no array for '{value}'")
            array = np.ascontiguousarray(vector[value]).astype(kind.element.storage, copy=False)
            if array.size != kind.size:
                raise DataError(
                    f"test vector {index}: '{value}' has {array.size} elements, not {kind.size}"
                )
            row.append(array.reshape(kind.shape))
        rows.append(tuple(row))
    return Vectors(len(rows), tuple(rows), not has_float_island(graph))


def has_float_island(graph: Graph) -> bool:
    """Some operator computes in floats, beyond moving them and crossing the boundary."""
    exact: tuple[type[Op], ...] = (Dequantize, Lookup, *MOVEMENT)
    return any(graph.output_type(op).is_float and not isinstance(op, exact) for op in graph.ops)
