"""QOperator models: nodes that take and give codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, QuantType

from qcompile.errors import UnsupportedError
from qcompile.importer import import_model
from qcompile.types import Array
from tests.importer.quantised import (
    FLOATS,
    INTEGERS,
    cnn,
    compiled,
    differences,
    images,
    model_of,
    onnxruntime_codes,
    our_codes,
    quantised,
    save,
)

node = helper.make_node
MICROSOFT = "com.microsoft"


@pytest.mark.parametrize(
    ("activations", "weights", "per_channel"),
    [
        (QuantType.QUInt8, QuantType.QInt8, True),
        (QuantType.QInt8, QuantType.QInt8, False),
        (QuantType.QUInt8, QuantType.QUInt8, False),
    ],
)
def test_every_code_is_that_of_onnxruntime(
    tmp_path: Path, activations: QuantType, weights: QuantType, per_channel: bool
) -> None:
    path = quantised(
        cnn(1, transposed=False),
        tmp_path,
        quant_format=QuantFormat.QOperator,
        activation_type=activations,
        weight_type=weights,
        per_channel=per_channel,
        reduce_range=True,
    )
    kinds = {item.op_type for item in onnx.load(path).graph.node}
    assert kinds >= {"QLinearConv", "QLinearAdd", "QLinearConcat", "QLinearMul", "QLinearSigmoid"}
    found = differences(path, compiled(path), images(3, seed=7), INTEGERS)
    assert len(found) >= 8
    assert not any(found.values()), found


def test_partly_quantised_models_follow_the_plan_elsewhere(tmp_path: Path) -> None:
    """onnxruntime leaves a ConvTranspose float here: its weights get our widths."""
    path = quantised(cnn(1), tmp_path, quant_format=QuantFormat.QOperator)
    result = compiled(path, wbits="6")
    graph = result.integer_graph
    assert graph.types[graph.by_name["up"].inputs[1]].integer.bits == 6
    assert graph.types[graph.by_name["conv2_quant"].inputs[1]].integer.bits == 8
    assert result.plan.layers["up"].weights is not None
    assert result.plan.layers["conv2_quant"].weights is None
    found = differences(path, result, images(2, seed=7), FLOATS)
    assert found["a_quantized"] == 0
    assert found["u_quantized"] > 0


def grid(name: str, scale: float, zero: int, dtype: Any = np.uint8) -> dict[str, Array]:
    return {f"{name}s": np.float32(scale), f"{name}z": np.array(zero, dtype)}


def quantize(x: str, y: str, name: str) -> onnx.NodeProto:
    return node("QuantizeLinear", [x, f"{name}s", f"{name}z"], [y])


CASES: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "QLinearAveragePool": (
        node("QLinearAveragePool", ["a", "as", "az", "ys", "yz"], ["y"], domain=MICROSOFT,
             kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        {},
    ),
    "QLinearGlobalAveragePool": (
        node("QLinearGlobalAveragePool", ["a", "as", "az", "ys", "yz"], ["y"], domain=MICROSOFT),
        {},
    ),
    "QLinearLeakyRelu": (
        node("QLinearLeakyRelu", ["a", "as", "az", "ys", "yz"], ["y"], domain=MICROSOFT,
             alpha=0.13),
        {},
    ),
    "QLinearSigmoid": (
        node("QLinearSigmoid", ["a", "as", "az", "ys", "yz"], ["y"], domain=MICROSOFT), {}
    ),
    "QLinearSoftmax": (
        node("QLinearSoftmax", ["a", "as", "az", "ps", "pz"], ["y"], domain=MICROSOFT, axis=1,
             opset=13),
        {"ps": np.float32(1 / 256), "pz": np.uint8(0)},
    ),
    "QLinearConcat": (
        node("QLinearConcat", ["ys", "yz", "a", "as", "az", "b", "bs", "bz"], ["y"],
             domain=MICROSOFT, axis=1),
        {},
    ),
    "QLinearAdd of a constant": (
        node("QLinearAdd", ["a", "as", "az", "c", "cs", "cz", "ys", "yz"], ["y"],
             domain=MICROSOFT),
        {"c": np.random.default_rng(5).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)},
    ),
    "QLinearMul": (
        node("QLinearMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"],
             domain=MICROSOFT),
        {},
    ),
    "QLinearMatMul": (
        node("QLinearMatMul", ["a", "as", "az", "w", "ws", "wz", "ys", "yz"], ["y"]),
        {"w": np.random.default_rng(6).integers(0, 256, (8, 5)).astype(np.uint8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operator(tmp_path: Path, case: str) -> None:
    operator, more = CASES[case]
    constants = {
        **grid("a", 0.0137, 51), **grid("b", 0.0093, 180), **grid("c", 0.0071, 99),
        **grid("w", 0.0123, 117), **grid("y", 0.0117, 101), **more,
    }  # fmt: skip
    nodes = [
        quantize("x", "a", "a"),
        node("DequantizeLinear", ["a", "as", "az"], ["ad"]),
        node("Neg", ["ad"], ["n"]),
        quantize("n", "b", "b"),
        operator,
    ]
    model = model_of(nodes, constants, (1, 3, 8, 8), result=TensorProto.UINT8,
                     domains={MICROSOFT: 1})  # fmt: skip
    path = save(model, tmp_path)
    result = compiled(path)
    total = ties = 0
    rng = np.random.default_rng(4)
    for _ in range(4):
        feed = {"x": rng.uniform(-0.7, 2.8, (1, 3, 8, 8)).astype(np.float32)}
        theirs = onnxruntime_codes(path, feed, INTEGERS)["y"]
        difference = our_codes(result.integer_graph, feed)["y"] - theirs
        assert np.abs(difference).max() <= 1
        ties += int(np.count_nonzero(difference))
        total += theirs.size
    # a softmax is a composite of our own, rounded to 16 bits before it gets the model's scale
    assert ties <= (total // 50 if case == "QLinearSoftmax" else 0)


def test_qgemm(tmp_path: Path) -> None:
    """transB, int32 bias in units of both scales, alpha, and a result without output scale."""
    rng = np.random.default_rng(8)
    constants = {
        **grid("a", 0.0137, 51), **grid("y", 0.0511, 101),
        "w": rng.integers(-127, 128, (5, 48)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.003, 5).astype(np.float32), "wz": np.zeros(5, np.int8),
        "b": rng.integers(-9000, 9000, 5).astype(np.int32),
    }  # fmt: skip
    inputs = ["f", "as", "az", "w", "ws", "wz", "b", "ys", "yz"]
    nodes = [
        quantize("x", "a", "a"),
        node("Flatten", ["a"], ["f"]),
        node("QGemm", inputs, ["y"], domain=MICROSOFT, transB=1, alpha=0.75, name="gemm"),
    ]
    model = model_of(nodes, constants, (1, 3, 4, 4), result=TensorProto.UINT8,
                     domains={MICROSOFT: 1})  # fmt: skip
    path = save(model, tmp_path)
    result = compiled(path)
    for feed in images(6, 4):
        theirs = onnxruntime_codes(path, feed, INTEGERS)["y"]
        np.testing.assert_array_equal(our_codes(result.integer_graph, feed)["y"], theirs)


def test_convolution_with_everything(tmp_path: Path) -> None:
    """Zero points of weights, groups, strides, dilations and padding: real zeros are code 0."""
    rng = np.random.default_rng(9)
    constants = {
        **grid("a", 0.0137, 51), **grid("y", 0.031, 77),
        "w": rng.integers(0, 256, (6, 2, 3, 3)).astype(np.uint8),
        "ws": np.float32(0.0021), "wz": np.uint8(131),
        "b": rng.integers(-20000, 20000, 6).astype(np.int32),
    }  # fmt: skip
    inputs = ["a", "as", "az", "w", "ws", "wz", "ys", "yz", "b"]
    nodes = [
        quantize("x", "a", "a"),
        node("QLinearConv", inputs, ["y"], name="conv", group=2, strides=[2, 1], dilations=[1, 2],
             pads=[1, 2, 1, 2]),
    ]  # fmt: skip
    model = model_of(nodes, constants, (1, 4, 9, 9), result=TensorProto.UINT8)
    path = save(model, tmp_path)
    graph = compiled(path).integer_graph
    assert graph.constants[graph.by_name["conv"].inputs[1]].min() == -131
    for _ in range(5):
        feed = {"x": rng.uniform(-0.7, 2.8, (1, 4, 9, 9)).astype(np.float32)}
        theirs = onnxruntime_codes(path, feed, INTEGERS)["y"]
        np.testing.assert_array_equal(our_codes(graph, feed)["y"], theirs)


def test_channels_last_is_refused(tmp_path: Path) -> None:
    pool = node("QLinearGlobalAveragePool", ["a", "as", "az", "ys", "yz"], ["y"],
                domain=MICROSOFT, channels_last=1, name="gap")  # fmt: skip
    constants = {**grid("a", 0.01, 0), **grid("y", 0.01, 0)}
    model = model_of([quantize("x", "a", "a"), pool], constants, (1, 3, 4, 4),
                     result=TensorProto.UINT8, domains={MICROSOFT: 1})  # fmt: skip
    with pytest.raises(UnsupportedError, match="'gap': channels_last"):
        import_model(save(model, tmp_path))
