"""Quantised models that cannot be honoured: one clear line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcompile.cli import run
from qcompile.errors import QCompileError, UsageError
from qcompile.importer import import_model
from tests.importer.quantised import compiled, model_of, save

node = helper.make_node


def pair(
    scale: Any = 0.02, zero: Any = None, opset: int = 13, **attributes: Any
) -> onnx.ModelProto:
    constants: dict[str, Any] = {"s": np.asarray(scale, np.float32)}
    inputs = ["x", "s"]
    if zero is not None:
        constants["z"] = zero
        inputs.append("z")
    nodes = [
        node("QuantizeLinear", inputs, ["q"], name="quantize", **attributes),
        node("DequantizeLinear", ["q", *inputs[1:]], ["y"], name="dequantize", **attributes),
    ]
    return model_of(nodes, constants, (1, 4, 4, 4), opset=opset)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (pair(0.0), "QuantizeLinear 'quantize': scale 0 is no scale"),
        (pair(-0.5), "QuantizeLinear 'quantize': scale -0.5 is no scale"),
        (pair(np.nan), "QuantizeLinear 'quantize': scale nan is no scale"),
        (pair(np.inf), "scale inf is no scale"),
        (pair(zero=np.float32(0)), "QuantizeLinear 'quantize': quantisation to float32"),
        (pair(zero=np.float32(1)), "zero point of type float32; it must be an integer"),
        (pair(zero=np.int32(0), opset=21), "codes of type int32"),
        (pair(np.full(4, 0.1), np.arange(4, dtype=np.uint8)), "4 scales for a tensor that is"),
        (pair(np.full(3, 0.1), np.zeros(3, np.uint8)), "3 scales for axis 1"),
        (pair(np.full(2, 0.1), np.zeros(3, np.uint8)), "3 zero points for 2 scales"),
        (
            pair(np.full((1, 2, 4, 4), 0.1), np.zeros((1, 2, 4, 4), np.uint8), 21, block_size=2),
            "QuantizeLinear 'quantize': blocked quantisation",
        ),
    ],
)
def test_wrong_grids(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(QCompileError, match=message.replace("(", r"\(")):
        import_model(save(model, tmp_path))


def test_scales_at_run_time(tmp_path: Path) -> None:
    nodes = [
        node("GlobalMaxPool", ["x"], ["m"]),
        node("Reshape", ["m", "one"], ["s"]),
        node("QuantizeLinear", ["x", "s"], ["q"], name="quantize"),
        node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    model = model_of(nodes, {"one": np.array([1], np.int64)}, (1, 1, 4, 4))
    with pytest.raises(QCompileError, match=r"its scale 's' is computed at run time.*statically"):
        import_model(save(model, tmp_path))


def test_dynamic_quantisation(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"),
        node("ConvInteger", ["q", "w", "z"], ["c"], name="conv"),
        node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"w": np.ones((2, 4, 1, 1), np.uint8)}, (1, 4, 4, 4))
    with pytest.raises(QCompileError) as caught:
        import_model(save(model, tmp_path))
    assert "DynamicQuantizeLinear 'dynamic'" in str(caught.value)
    assert "ConvInteger 'conv'" in str(caught.value)
    assert "quantise statically" in str(caught.value)


@pytest.mark.parametrize("element", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_elements_that_we_do_not_read(tmp_path: Path, element: int) -> None:
    model = pair(zero=np.uint8(0), opset=21)
    zero = model.graph.initializer[1]
    zero.CopyFrom(helper.make_tensor("z", element, [], [0.0 if element != TensorProto.INT4 else 0]))
    with pytest.raises(QCompileError, match="initialiser 'z': elements of type"):
        import_model(save(model, tmp_path))


def test_arithmetic_on_codes(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Mul", ["q", "q"], ["m"], name="product"),
        node("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.uint8(0)}
    with pytest.raises(QCompileError, match="'product': arithmetic on the codes"):
        import_model(save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path))


def test_codes_of_different_scales_joined(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QuantizeLinear", ["x", "t", "z"], ["r"]),
        node("Concat", ["q", "r"], ["c"], axis=1, name="join"),
        node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.uint8(0)}
    with pytest.raises(QCompileError, match="'join': tensors of codes with different scales"):
        import_model(save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path))


@pytest.mark.parametrize("constant", [True, False])
def test_zero_points_of_another_type(tmp_path: Path, constant: bool) -> None:
    constants = {
        "s": np.float32(0.1), "z": np.uint8(7), "i": np.int8(7),
        "w": np.ones((2, 4, 1, 1), np.uint8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z" if constant else "i"], ["a"]),
        node("DequantizeLinear", ["w", "s", "i" if constant else "z"], ["wd"]),
        node("Conv", ["a", "wd"], ["y"], name="conv"),
    ]
    with pytest.raises(QCompileError, match="zero point of type int8 for codes"):
        import_model(save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path))


def test_weights_alone_may_be_quantised(tmp_path: Path) -> None:
    """Then activations follow the plan, and its widths may be named."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (2, 4, 1, 1)).astype(np.int8)
    constants = {"w": codes, "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        node("Conv", ["x", "wd"], ["y"], name="conv"),
    ]
    path = save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path)
    result = compiled(path, abits="6", first_last_bits="6")
    graph = result.integer_graph
    weights = graph.by_name["conv"].inputs[1]
    np.testing.assert_array_equal(graph.constants[weights], codes)
    assert graph.types[graph.by_name["conv"].inputs[0]].integer.bits == 6
    with pytest.raises(UsageError, match="--wbits 4: the model is quantised already"):
        compiled(path, wbits="4")


def test_weights_scaled_by_input_channel(tmp_path: Path) -> None:
    constants = {
        "w": np.ones((2, 4, 1, 1), np.int8), "ws": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "wz": np.zeros(4, np.int8),
    }  # fmt: skip
    nodes = [
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        node("Conv", ["x", "wd"], ["y"], name="conv"),
    ]
    with pytest.raises(QCompileError, match="'wd' has different scales within an output channel"):
        import_model(save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path))


def quantised_layer(tmp_path: Path) -> Path:
    """Everything has a grid: input, weights and output."""
    constants = {
        "s": np.float32(0.02), "z": np.uint8(0), "w": np.ones((2, 4, 1, 1), np.int8),
        "t": np.float32(0.04), "wz": np.int8(0),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["a"]),
        node("DequantizeLinear", ["w", "t", "wz"], ["wd"]),
        node("Conv", ["a", "wd"], ["c"], name="conv"),
        node("QuantizeLinear", ["c", "t", "z"], ["q"]),
        node("DequantizeLinear", ["q", "t", "z"], ["y"]),
    ]
    return save(model_of(nodes, constants, (1, 4, 4, 4)), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wbits": "4"}, "--wbits 4: the model is quantised already"),
        ({"abits": "4"}, "--abits 4: the model is quantised already"),
        ({"quantizer": "fixed"}, "--quantizer fixed: the model is quantised already"),
        ({"prune": 0.5}, "--prune: the model is quantised already"),
    ],
)
def test_widths_that_nothing_is_left_for(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = quantised_layer(tmp_path)
    with pytest.raises(UsageError, match=message):
        compiled(path, **options)


def test_widths_of_one_quantised_layer(tmp_path: Path) -> None:
    path = quantised_layer(tmp_path)
    config = tmp_path / "plan.toml"
    config.write_text('[[layer]]\nname = "conv"\nwbits = 4\n')
    assert run([str(path), "--config", str(config), "-o", str(tmp_path / "out")]) == 2


def test_a_written_plan_repeats_the_run(tmp_path: Path) -> None:
    """It leaves out what the model says itself."""
    path = quantised_layer(tmp_path)
    first, second = tmp_path / "a", tmp_path / "b"
    assert run([str(path), "--target", "sim", "-o", str(first)]) == 0
    (plan,) = first.glob("*.toml")
    assert "conv" not in plan.read_text()
    again = ["--config", str(plan), "--target", "sim", "-o", str(second)]
    assert run([str(path), *again]) == 0
    for file in first.glob("*.npz"):
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_an_input_of_codes_knows_its_own_scale(tmp_path: Path) -> None:
    constants = {"s": np.float32(0.1), "z": np.uint8(7)}
    nodes = [
        node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        node("Relu", ["a"], ["y"], name="relu"),
    ]
    model = model_of(nodes, constants, (1, 4, 4, 4), element=TensorProto.UINT8)
    path = save(model, tmp_path)
    with pytest.raises(UsageError, match="input 'x' mean; leave them out"):
        compiled(path, input_kind="uint8", input_scale=0.5)


def test_an_input_of_codes_that_is_read_twice(tmp_path: Path) -> None:
    constants = {"s": np.float32(0.1), "z": np.uint8(7)}
    nodes = [
        node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        node("DequantizeLinear", ["x", "s", "z"], ["a"], name="dequantize"),
        node("Add", ["a", "c"], ["y"]),
    ]
    model = model_of(nodes, constants, (1, 4, 4, 4), element=TensorProto.UINT8)
    with pytest.raises(QCompileError, match="read as plain numbers and as codes"):
        import_model(save(model, tmp_path))
