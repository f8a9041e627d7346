from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qcompile.boundary import InputKind, InputSpec
from qcompile.data import EvaluationData
from qcompile.graph import Graph, Stage
from qcompile.options import CompileOptions
from qcompile.search import candidate
from qcompile.search.candidate import Problem
from qcompile.types import TensorType


def problem() -> Problem:
    """A network that returns its input, and one image."""
    graph = Graph("g", Stage.FLOAT, ("x",), ("x",), (), {"x": TensorType((1, 1, 4, 4))}, {})
    label = np.eye(4, dtype=np.uint8)
    data = EvaluationData(({"x": np.where(label, 1, -1).astype(np.float32)[None]},), (label,))
    specs = {"x": InputSpec(InputKind.FLOAT32)}
    quantization: Any = SimpleNamespace(specs=specs, options=CompileOptions())
    return Problem(quantization, graph, (), data)


def test_the_float_network_is_judged_once_for_each_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found = candidate.evaluate
    known = []

    def watched(*given: Any, **named: Any) -> Any:
        known.append(named["known"])
        return found(*given, **named)

    monkeypatch.setattr(candidate, "evaluate", watched)
    one, two = problem(), problem()
    for item in (one, one, two, one):
        assert item.evaluation is not None
        result = candidate._evaluated(item, item.evaluation, item.reference)
        assert (result.dice_float, result.dice_quantized) == (1, 1)
    assert [item is None for item in known] == [True, False, True, True]
