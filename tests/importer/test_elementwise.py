"""Arithmetic with constants, activations, norms and matrix products, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.errors import ModelError, UnsupportedError
from qcompile.ops import Affine, GroupNorm, MatMul, Rescale
from qcompile.types import Array
from tests.importer.models import assert_like_onnxruntime, build, imported, kinds

RNG = np.random.default_rng(9)


def _normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


AFFINE = [(2, 1, 1), (1, 2, 1, 1), (), (1,), (1, 1, 1, 1)]
GENERAL = [(4,), (4, 4), (1, 2, 4, 4), (1, 1, 1, 2, 1, 1), (3, 1, 2, 4, 4)]


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [*AFFINE, *GENERAL])
def test_constant_operand(operator: str, shape: tuple[int, ...]) -> None:
    constants = {"c": _normal(*shape)}
    node = helper.make_node(operator, ["x", "c"], ["y"])
    graph = assert_like_onnxruntime(build([node], constants=constants))
    assert (kinds(graph) == ["Affine"]) == (shape in AFFINE)
    swapped = build([helper.make_node(operator, ["c", "x"], ["y"])], constants=constants)
    assert_like_onnxruntime(swapped, 1e-4 if operator == "Div" else 1e-5)


def test_one_channel_is_not_spread_by_an_affine() -> None:
    node = helper.make_node("Mul", ["x", "c"], ["y"])
    graph = assert_like_onnxruntime(
        build([node], {"x": (1, 1, 3, 3)}, constants={"c": _normal(4, 1, 1)})
    )
    assert graph.types["y"].shape == (1, 4, 3, 3)


def test_division_by_zero() -> None:
    node = helper.make_node("Div", ["x", "c"], ["y"], name="d")
    with pytest.raises(ModelError, match="Div 'd': a division by the constant 0"):
        imported(build([node], constants={"c": np.zeros(1, np.float32)}))


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_computed_operands(operator: str) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["g"]),
        helper.make_node(operator, ["x", "g"], ["y"]),
    ]
    assert_like_onnxruntime(build(nodes))


def test_sum_and_pow() -> None:
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Sum", ["x", "t", "x"], ["s"]),
        helper.make_node("Pow", ["s", "two"], ["y"]),
    ]
    graph = assert_like_onnxruntime(build(nodes, constants={"two": np.array(2, np.float32)}))
    assert kinds(graph) == ["Tanh", "Add", "Add", "Mul"]


@pytest.mark.parametrize(
    ("opset", "node", "constants"),
    [
        (17, helper.make_node("Relu", ["x"], ["y"]), {}),
        (17, helper.make_node("Neg", ["x"], ["y"]), {}),
        (17, helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.2), {}),
        (17, helper.make_node("PRelu", ["x", "c"], ["y"]), {"c": _normal(2, 1, 1)}),
        (17, helper.make_node("PRelu", ["x", "c"], ["y"]), {"c": _normal(1)}),
        (17, helper.make_node("PRelu", ["x", "c"], ["y"]), {"c": _normal(4)}),
        (9, helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.25), {}),
        (9, helper.make_node("Clip", ["x"], ["y"]), {}),
        (13, helper.make_node("Clip", ["x", "c"], ["y"]), {"c": np.array(0.1, np.float32)}),
        (13, helper.make_node("Clip", ["x", "", "c"], ["y"]), {"c": np.array(0.1, np.float32)}),
        (13, helper.make_node("Max", ["x", "c"], ["y"]), {"c": np.array(0.1, np.float32)}),
        (13, helper.make_node("Min", ["c", "x"], ["y"]), {"c": np.array(0.1, np.float32)}),
        (17, helper.make_node("Elu", ["x"], ["y"], alpha=0.5), {}),
        (17, helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4), {}),
        (17, helper.make_node("HardSwish", ["x"], ["y"]), {}),
        (17, helper.make_node("Softplus", ["x"], ["y"]), {}),
    ],
)
def test_activations(opset: int, node: onnx.NodeProto, constants: dict[str, Array]) -> None:
    assert_like_onnxruntime(build([node], constants=constants, opset=opset))


def test_activations_are_rescales() -> None:
    (op,) = imported(build([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)])).ops
    assert isinstance(op, Rescale)
    assert op.activation.slope == (0.5,)


def test_batch_normalization() -> None:
    constants = {n: _normal(2) for n in "sbm"} | {"v": np.array([0.5, 2], np.float32)}
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])
    (op,) = assert_like_onnxruntime(build([node], constants=constants)).ops
    assert isinstance(op, Affine)
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], training_mode=1)
    with pytest.raises(UnsupportedError, match="training mode"):
        imported(build([node], constants=constants))
    constants["v"] = np.array([0.5, -2], np.float32)
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])
    with pytest.raises(ModelError, match="not positive"):
        imported(build([node], constants=constants))


def test_instance_normalization() -> None:
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])
    (op,) = assert_like_onnxruntime(
        build([node], constants={"s": _normal(2), "b": _normal(2)}), 1e-4
    ).ops
    assert isinstance(op, GroupNorm)
    assert op.groups == 2


@pytest.mark.parametrize(("opset", "entries"), [(18, 2), (21, 4)])
def test_group_normalization(opset: int, entries: int) -> None:
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    constants = {"s": _normal(entries), "b": _normal(entries)}
    model = build([node], {"x": (1, 4, 3, 3)}, constants=constants, opset=opset)
    (op,) = imported(model).ops
    assert isinstance(op, GroupNorm)
    expected = constants["s"].repeat(4 // entries)
    np.testing.assert_array_equal(imported(model).constants[op.inputs[1]], expected)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1, 1), (), (1,)])
def test_gemm(trans_a: int, trans_b: int, bias: tuple[int, ...]) -> None:
    node = helper.make_node(
        "Gemm", ["x", "w", "c"], ["y"], transA=trans_a, transB=trans_b, alpha=0.5, beta=2.0
    )
    constants = {"w": _normal(5, 3) if trans_b else _normal(3, 5), "c": _normal(*bias)}
    # a column of one entry is the only transposed input with batch 1
    shape = {"x": (1, 3)}
    nodes = [node]
    if trans_a:
        nodes = [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
            helper.make_node(
                "Gemm", ["t", "w", "c"], ["y"], transA=1, transB=trans_b, alpha=0.5, beta=2.0
            ),
        ]
    assert_like_onnxruntime(build(nodes, shape, constants=constants))


def test_gemm_with_the_constant_on_the_left() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Gemm", ["w", "t", "c"], ["y"]),
    ]
    constants = {"w": _normal(5, 3), "c": _normal(5, 1)}
    assert_like_onnxruntime(build(nodes, {"x": (1, 3)}, constants=constants))


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (4,)])
def test_matmul_by_a_constant(shape: tuple[int, ...]) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = assert_like_onnxruntime(build([node], constants={"w": _normal(*shape)}))
    assert isinstance(graph.ops[0], MatMul)


def test_matmul_of_a_constant() -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"])
    graph = assert_like_onnxruntime(build([node], constants={"w": _normal(5, 4)}))
    assert kinds(graph) == ["Transpose", "MatMul", "Transpose"]


def test_matmul_of_computed_tensors() -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    assert kinds(assert_like_onnxruntime(build([node]))) == ["BatchMatMul"]
