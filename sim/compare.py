"""Comparison of two executions of one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first element in which two executions differ.

    `index` is in the value's logical order; `expected` and `actual` are the numbers there, or
    descriptions where shape or dtype differ or a value is missing.
    """

    op: str
    value: str
    index: tuple[int, ...]
    expected: int | float | str
    actual: int | float | str
    count: int = 1
    total: int = 1

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"{self.op}: value '{self.value}'{where} is {self.actual}, expected {self.expected}; "
            f"{self.count} of {self.total} elements differ"
        )


def compare_runs(
    expected: Mapping[str, Array], actual: Mapping[str, Array], graph: Graph
) -> Mismatch | None:
    """The first difference, in the order of the graph's operators; None if there is none.

    Args:
        expected: values by name, usually the simulator's taps. Only these are compared.
        actual: the other execution's values.
        graph: tells the order and the operator of each value.

    Equality is exact: floats are compared by value, NaN equals NaN.
    """
    for value in graph.activations():
        if value not in expected:
            continue
        producer = graph.producers.get(value)
        name = producer.label() if producer is not None else "the network's input"
        if value not in actual:
            return Mismatch(name, value, (), "a value", "missing")
        difference = compare_arrays(name, value, expected[value], actual[value])
        if difference is not None:
            return difference
    return None


def compare_arrays(op: str, value: str, expected: Array, actual: Array) -> Mismatch | None:
    """The first difference between two arrays; `op` and `value` say of what."""
    if expected.shape != actual.shape:
        shapes = f"shape {list(expected.shape)}", f"shape {list(actual.shape)}"
        return Mismatch(op, value, (), *shapes)
    if (expected.dtype.kind == "f") != (actual.dtype.kind == "f"):
        return Mismatch(op, value, (), f"dtype {expected.dtype}", f"dtype {actual.dtype}")
    different = expected != actual
    if expected.dtype.kind == "f":
        different &= ~(np.isnan(expected) & np.isnan(actual))
    count = int(np.count_nonzero(different))
    if count == 0:
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(different)), expected.shape))
    return Mismatch(
        op, value, index, expected[index].item(), actual[index].item(), count, expected.size
    )
