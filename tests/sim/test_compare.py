"""The comparison names the first operator that differs, in graph order."""

from __future__ import annotations

import numpy as np

from qcompile.graph import Graph, Stage
from qcompile.ops import Reshape
from qcompile.sim.compare import Mismatch, compare_runs
from qcompile.types import Array, TensorType


def chain() -> Graph:
    kind = TensorType((2, 3))
    ops = tuple(
        Reshape(name=f"op_{a}{b}", inputs=(a,), outputs=(b,), shape=(2, 3))
        for a, b in ("xa", "ab", "bc")
    )
    return Graph("chain", Stage.FLOAT, ("x",), ("c",), ops, dict.fromkeys("xabc", kind), {})


def values(names: str) -> dict[str, Array]:
    return {name: np.arange(6, dtype=np.int8).reshape(2, 3) for name in names}


def test_equal_runs_have_no_mismatch() -> None:
    assert compare_runs(values("xabc"), values("xabc"), chain()) is None
    assert compare_runs(values("b"), values("xabc"), chain()) is None


def test_the_first_operator_counts() -> None:
    actual = values("cbax")
    actual["c"][0, 0] = 9
    actual["b"][1, 0] += 1
    actual["b"][1, 2] += 1
    found = compare_runs(values("cbax"), actual, chain())
    assert found == Mismatch("Reshape 'op_ab'", "b", (1, 0), 3, 4, 2, 6)
    assert str(found) == (
        "Reshape 'op_ab': value 'b'[1, 0] is 4, expected 3; 2 of 6 elements differ"
    )


def test_missing_values_shapes_and_dtypes() -> None:
    missing = compare_runs(values("ab"), values("a"), chain())
    assert missing is not None
    assert (missing.value, missing.actual) == ("b", "missing")
    shape = compare_runs(values("a"), {"a": np.zeros((3, 2), np.int8)}, chain())
    assert shape is not None
    assert (shape.expected, shape.actual) == ("shape [2, 3]", "shape [3, 2]")
    dtype = compare_runs(values("a"), {"a": values("a")["a"].astype(np.float32)}, chain())
    assert dtype is not None
    wider = {"a": values("a")["a"].astype(np.int32)}
    assert compare_runs(values("a"), wider, chain()) is None


def test_floats_are_compared_exactly_and_nan_equals_nan() -> None:
    first = {"a": np.array([[0.1, np.nan, 0.0]] * 2, np.float32)}
    assert compare_runs(first, {"a": first["a"].copy()}, chain()) is None
    second = {"a": first["a"].copy()}
    second["a"][1, 0] = np.nextafter(second["a"][1, 0], np.float32(1))
    found = compare_runs(first, second, chain())
    assert found is not None
    assert found.index == (1, 0)
