"""Operators that move elements, reductions, and constants that are folded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcompile.errors import ModelError, UnsupportedError
from qcompile.types import Array, IntType
from tests.importer.models import assert_like_onnxruntime, build, imported, kinds


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("opset", [9, 11, 18])
def test_pad(mode: str, opset: int) -> None:
    pads = [0, 0, 1, 2, 0, 0, 3, 0]
    if opset < 11:
        node = helper.make_node("Pad", ["x"], ["y"], mode=mode, pads=pads, value=1.5)
        assert_like_onnxruntime(build([node], opset=opset))
        return
    node = helper.make_node("Pad", ["x", "p", "v"], ["y"], mode=mode)
    constants = {"p": _ints(*pads), "v": np.array(1.5, np.float32)}
    assert_like_onnxruntime(build([node], constants=constants, opset=opset))


def test_negative_pads() -> None:
    node = helper.make_node("Pad", ["x", "p"], ["y"])
    graph = assert_like_onnxruntime(build([node], constants={"p": _ints(0, 0, -1, 2, 0, 0, 1, -1)}))
    assert kinds(graph) == ["Slice", "Pad"]
    graph = assert_like_onnxruntime(build([node], constants={"p": _ints(0, 0, -1, 0, 0, 0, 0, -1)}))
    assert kinds(graph) == ["Slice"]


def test_pad_axes() -> None:
    node = helper.make_node("Pad", ["x", "p", "", "a"], ["y"])
    constants = {"p": _ints(1, 2, 3, 0), "a": _ints(-1, 2)}
    assert_like_onnxruntime(build([node], constants=constants, opset=18))


def test_padding_with_infinity_is_refused() -> None:
    node = helper.make_node("Pad", ["x", "p", "v"], ["y"])
    constants = {"p": _ints(0, 0, 1, 1, 0, 0, 1, 1), "v": np.array(-np.inf, np.float32)}
    with pytest.raises(UnsupportedError, match="padding with -inf"):
        imported(build([node], constants=constants))


def test_slice_forms() -> None:
    node = helper.make_node("Slice", ["x"], ["y"], starts=[1, -3], ends=[1000, -1], axes=[2, 3])
    assert_like_onnxruntime(build([node], opset=9))
    node = helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"])
    constants = {"s": _ints(-1, 0), "e": _ints(-(2**62), 4), "a": _ints(3, -2), "t": _ints(-2, 3)}
    assert_like_onnxruntime(build([node], constants=constants))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split(opset: int) -> None:
    attributes: dict[str, int] = {"num_outputs": 2} if opset >= 18 else {}
    node = helper.make_node("Split", ["x"], ["y", "z"], axis=-1, **attributes)
    graph = assert_like_onnxruntime(build([node], outputs=["y", "z"], opset=opset))
    assert kinds(graph) == ["Slice", "Slice"]
    assert len({op.name for op in graph.ops}) == 2


def test_split_lengths_and_unused_outputs() -> None:
    node = helper.make_node("Split", ["x", "l"], ["a", "y", "b"], axis=2)
    graph = assert_like_onnxruntime(build([node], constants={"l": _ints(1, 2, 1)}))
    assert kinds(graph) == ["Slice"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Transpose", ["x"], ["y"]),
        helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["x"], ["y"], axis=-2),
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD"),
        helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2),
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2),
        helper.make_node("Concat", ["x", "x"], ["y"], axis=-3),
        helper.make_node("Gather", ["x", "one"], ["y"], axis=1),
        helper.make_node("Gather", ["x", "odd"], ["y"], axis=-1),
        helper.make_node("Gather", ["x", "uneven"], ["y"], axis=2),
        helper.make_node("Gather", ["x", "table"], ["y"], axis=-1),
        helper.make_node("Expand", ["x", "five"], ["y"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("Unsqueeze", ["x", "odd"], ["y"]),
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[-1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["y"]),
        helper.make_node("ReduceSum", ["x", "odd"], ["y"]),
        helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0),
        helper.make_node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1),
    ],
)
def test_movement(node: onnx.NodeProto) -> None:
    constants = {
        "one": np.array(-1, np.int64),
        "odd": _ints(1, 3),
        "five": _ints(5, 1, 4, 4, 4),
        "shape": _ints(0, -1, 8),
        "uneven": _ints(0, 1, 3, 2, 2, -4),
        "table": np.array([[0, 1, 2], [1, 2, 3]], np.int64),
    }
    assert_like_onnxruntime(build([node], {"x": (1, 4, 4, 4)}, constants=constants))


def test_expand_of_pooled_features() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["g"]),
        helper.make_node("Expand", ["g", "shape"], ["y"]),
    ]
    graph = assert_like_onnxruntime(build(nodes, constants={"shape": _ints(1, 2, 4, 3)}))
    assert kinds(graph) == ["ReduceMean", "NearestResize"]


def test_gather_beyond_an_axis() -> None:
    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=2)
    with pytest.raises(ModelError, match="outside the axis"):
        imported(build([node], constants={"i": _ints(4)}))


def test_squeeze_forms() -> None:
    shape = {"x": (1, 2, 1, 4)}
    node = helper.make_node("Squeeze", ["x"], ["y"], axes=[-2])
    assert_like_onnxruntime(build([node], shape, opset=11))
    node = helper.make_node("Squeeze", ["x", "a"], ["y"])
    assert_like_onnxruntime(build([node], shape, constants={"a": _ints(2)}))
    assert_like_onnxruntime(build([helper.make_node("Squeeze", ["x"], ["y"])], shape))


@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_softmax(opset: int, axis: int) -> None:
    assert_like_onnxruntime(
        build([helper.make_node("Softmax", ["x"], ["y"], axis=axis)], opset=opset)
    )


def test_arg_max() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["a"], axis=1, keepdims=0),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.INT32),
    ]
    model = build(nodes, {"x": (1, 3, 4, 4)})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    graph = assert_like_onnxruntime(model)
    assert graph.types["y"].element == IntType(2, signed=False)


def test_arithmetic_on_classes_is_refused() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["a"], axis=1),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(UnsupportedError, match="class indices"):
        imported(build(nodes))


def test_shapes_are_folded() -> None:
    """The way torch exports `view(x.shape[0], -1, x.shape[2] * x.shape[3])`, and a center crop."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Gather", ["s", "two"], ["h"], axis=0),
        helper.make_node("Gather", ["s", "three"], ["w"], axis=0),
        helper.make_node("Mul", ["h", "w"], ["hw"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Unsqueeze", ["hw", "axis"], ["hw1"]),
        helper.make_node("Concat", ["n1", "minus", "hw1"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, np.int64),
        "two": np.array(2, np.int64),
        "three": np.array(3, np.int64),
        "axis": _ints(0),
        "minus": _ints(-1),
    }
    graph = assert_like_onnxruntime(build(nodes, constants=constants))
    assert kinds(graph) == ["Reshape"]
    assert graph.types["y"].shape == (1, 2, 16)


def test_other_constants_are_folded() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["four"], ["zeros"]),
        helper.make_node("Range", ["a", "b", "c"], ["range"]),
        helper.make_node("Less", ["range", "b"], ["less"]),
        helper.make_node("Where", ["less", "range", "zeros"], ["where"]),
        helper.make_node("Expand", ["where", "grid"], ["big"]),
        helper.make_node("Size", ["big"], ["size"]),
        helper.make_node("Cast", ["size"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "big"], ["sum"]),
        helper.make_node("Mul", ["sum", "real"], ["y"]),
    ]
    constants = {
        "four": _ints(4),
        "a": np.array(0, np.float32),
        "b": np.array(4, np.float32),
        "c": np.array(1, np.float32),
        "grid": _ints(4, 4),
    }
    graph = assert_like_onnxruntime(build(nodes, constants=constants))
    assert kinds(graph) == ["Add", "Affine"]


@pytest.mark.parametrize(
    "attributes", [{"value_float": 2.0}, {"value_floats": [2.0]}, {"value_int": 2}]
)
def test_constant_forms(attributes: dict[str, float]) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    assert kinds(assert_like_onnxruntime(build(nodes))) == ["Affine"]


def test_size_and_shape_of_a_part() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=1, end=-1),
        helper.make_node("Concat", ["s", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    graph = assert_like_onnxruntime(build(nodes, constants={"minus": _ints(-1)}))
    assert graph.types["y"].shape == (2, 4, 4)
