"""Quantised models through every back end: the codes stay those of the simulator."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnxruntime.quantization import QuantFormat

from qcompile.cli import run
from tests.importer.quantised import (
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
from tests.importer.test_qonnx import network

node = helper.make_node
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_yosys = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@needs_gcc
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_c_of_static_quantisation(tmp_path: Path, form: QuantFormat) -> None:
    path = quantised(cnn(2, transposed=False), tmp_path, quant_format=form)
    assert run([str(path), "--target", "c", "--verify", "-q", "-o", str(tmp_path / "c")]) == 0


@needs_gcc
@pytest.mark.parametrize("mode", ["ROUND", "UP", "FLOOR"])
def test_c_of_qonnx(tmp_path: Path, mode: str) -> None:
    model, _ = network(0.25, 4, power=True, signed=1, narrow=0, rounding_mode=mode)
    path = save(model, tmp_path)
    assert run([str(path), "--target", "c", "--verify", "-q", "-o", str(tmp_path / "c")]) == 0


@pytest.mark.slow
@needs_yosys
@pytest.mark.parametrize("mode", ["ROUND", "DOWN"])
def test_hardware_of_qonnx(tmp_path: Path, mode: str) -> None:
    model, _ = network(0.25, 4, power=True, signed=1, narrow=0, rounding_mode=mode)
    del model.graph.input[0].type.tensor_type.shape.dim[2:]
    for size in (6, 5):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    path = save(model, tmp_path)
    arguments = [str(path), "--target", "hdl", "--verify", "-q", "-o", str(tmp_path / "hdl")]
    assert run(arguments) == 0


@pytest.mark.parametrize("target", ["qdq", "qonnx"])
def test_exported_again(tmp_path: Path, target: str) -> None:
    """As another form, biases in integers included."""
    path = quantised(cnn(4), tmp_path, quant_format=QuantFormat.QDQ, per_channel=True)
    assert run([str(path), "--target", target, "--verify", "-q", "-o", str(tmp_path / "o")]) == 0


def two_readers(tmp_path: Path) -> Path:
    """A convolution whose result two different grids read, one of them behind a pool."""
    rng = np.random.default_rng(0)
    constants = {
        "s": np.float32(1 / 255), "z": np.uint8(0), "s1": np.float32(0.013), "z1": np.uint8(99),
        "s2": np.float32(0.029), "z2": np.uint8(131), "sw": np.float32(0.004), "zw": np.int8(0),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wd"]),
        node("Conv", ["xd", "wd"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["c", "s1", "z1"], ["q1"], name="fine"),
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1]),
        node("QuantizeLinear", ["p", "s2", "z2"], ["q2"], name="coarse"),
        node("DequantizeLinear", ["q1", "s1", "z1"], ["d1"]),
        node("DequantizeLinear", ["q2", "s2", "z2"], ["d2"]),
        node("Add", ["d1", "d2"], ["a"], name="add"),
        node("QuantizeLinear", ["a", "s2", "z2"], ["q3"]),
        node("DequantizeLinear", ["q3", "s2", "z2"], ["y"]),
    ]
    return save(model_of(nodes, constants, (1, 3, 12, 12)), tmp_path)


@needs_gcc
def test_a_value_that_two_grids_read(tmp_path: Path) -> None:
    """It is kept so finely that rounding twice makes no difference."""
    path = two_readers(tmp_path)
    result = compiled(path)
    assert result.integer_graph.types["c"].integer.bits > 20
    found = differences(path, result, images(4))
    assert found["q1"] == found["q2"] == 0
    for feed in images(4):
        ours = our_codes(result.integer_graph, feed)["y"]
        np.testing.assert_array_equal(ours, onnxruntime_codes(path, feed)["q3"])
    assert run([str(path), "--target", "c", "--verify", "-q", "-o", str(tmp_path / "c")]) == 0


def test_values_between_grids_have_sixteen_bits(tmp_path: Path) -> None:
    """What other tools compute in floats; unless a width is named."""
    constants = {"s": np.float32(1 / 255), "z": np.uint8(0)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        node("LeakyRelu", ["a"], ["r"], alpha=0.3, name="leaky"),
        node("Sigmoid", ["r"], ["t"], name="sigmoid"),
        node("QuantizeLinear", ["t", "s", "z"], ["q2"]),
        node("DequantizeLinear", ["q2", "s", "z"], ["y"]),
    ]
    path = save(model_of(nodes, constants, (1, 3, 12, 12)), tmp_path)
    assert compiled(path).plan.layers["leaky"].output.bits == 16
    narrow = compiled(path, abits="6", first_last_bits="6")
    assert narrow.plan.layers["leaky"].output.bits == 6
