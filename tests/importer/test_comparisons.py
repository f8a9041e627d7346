"""Signs, comparisons and choices, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcompile.errors import ModelError, UnsupportedError
from tests.importer.models import assert_like_onnxruntime, build, imported

node = helper.make_node
LIMIT, ROW = np.float32(0.25), np.array([0.1, 0.2, 0.3, 0.4], np.float32)


def to_float(x: str, y: str = "y") -> onnx.NodeProto:
    return node("Cast", [x], [y], to=TensorProto.FLOAT)


def model(nodes: Sequence[onnx.NodeProto], **constants: Any) -> onnx.ModelProto:
    inputs = {"x": (1, 2, 4, 4), "z": (1, 2, 4, 4)}
    used = {value for item in nodes for value in item.input}
    data = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    return build(nodes, {name: inputs[name] for name in inputs if name in used}, ("y",), data)


@pytest.mark.parametrize("kind", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("operands", [("x", "limit"), ("limit", "x"), ("x", "z"), ("x", "x")])
def test_comparisons(kind: str, operands: tuple[str, str]) -> None:
    nodes = [node(kind, operands, ["c"]), to_float("c")]
    assert_like_onnxruntime(model(nodes, limit=LIMIT))


@pytest.mark.parametrize("kind", ["Sign", "Abs"])
def test_signs(kind: str) -> None:
    assert_like_onnxruntime(model([node(kind, ["x"], ["y"])]))


@pytest.mark.parametrize("kind", ["And", "Or"])
def test_logic(kind: str) -> None:
    above, below = node("Greater", ["x", "limit"], ["a"]), node("Less", ["x", "lower"], ["b"])
    nodes = [above, below, node("Not", ["b"], ["n"]), node(kind, ["a", "n"], ["c"]), to_float("c")]
    assert_like_onnxruntime(model(nodes, limit=LIMIT, lower=-LIMIT))


@pytest.mark.parametrize(
    "branches",
    [("x", "z"), ("one", "z"), ("x", "two"), ("one", "two"), ("zero", "z"), ("x", "zero")],
)
def test_choices(branches: tuple[str, str]) -> None:
    nodes = [node("Greater", ["x", "limit"], ["c"]), node("Where", ["c", *branches], ["y"])]
    assert_like_onnxruntime(model(nodes, limit=LIMIT, one=1.0, two=[-2.5], zero=0.0))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Greater", ["x", "row"], ["c"]), to_float("c")], "is not one number"),
        ([node("Greater", ["x", "z"], ["c"]), node("Where", ["c", "row", "x"], ["y"])], "branch"),
    ],
)
def test_what_is_not_supported_says_so(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        imported(model(nodes, row=ROW))


def test_a_condition_is_bool() -> None:
    with pytest.raises(ModelError, match=r"Where.*a condition of float32 instead of bool"):
        imported(model([node("Where", ["flag", "x", "z"], ["y"])], flag=1.0))


def test_infinite_limits_are_malformed() -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        imported(model([node("Greater", ["x", "limit"], ["c"]), to_float("c")], limit=np.inf))
