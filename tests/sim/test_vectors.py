"""The vectors beside a network file."""

from __future__ import annotations

import io

import numpy as np

from qcompile.graph import Graph, Stage
from qcompile.ops import Transpose
from qcompile.sim.vectors import vectors_bytes
from qcompile.types import UINT8, TensorType


def test_names_that_become_alike_stay_apart() -> None:
    kind = TensorType((1, 2, 2), UINT8)
    ops = tuple(
        Transpose(name=name, inputs=("x",), outputs=(name,), permutation=(0, 1, 2))
        for name in ("a/b", "a_b", "../../b")
    )
    types = {"x": kind, **{op.output: kind for op in ops}}
    graph = Graph("g", Stage.INTEGER, ("x",), tuple(op.output for op in ops), ops, types, {})
    vector = {name: np.full((1, 2, 2), index, np.uint8) for index, name in enumerate(types)}
    data = vectors_bytes(graph, [vector, vector])
    assert data == vectors_bytes(graph, [vector, vector])
    archive = np.load(io.BytesIO(data), allow_pickle=False)
    assert archive.files == ["in/x", "out/a_b", "out/a_b_", "out/_.._b"]
    assert [int(archive[name][1, 0, 0]) for name in archive.files] == [0, 1, 2, 3]
