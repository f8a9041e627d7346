"""QDQ and QCDQ models: codes as onnxruntime computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, QuantType

from qcompile.sim.executor import Executor
from qcompile.types import Array, IntType
from tests.importer.quantised import (
    FLOATS,
    INTEGERS,
    cnn,
    compiled,
    differences,
    float_outputs,
    images,
    model_of,
    onnxruntime_codes,
    our_codes,
    quantised,
    run,
    save,
)

node = helper.make_node


@pytest.mark.parametrize(
    ("activations", "weights", "per_channel", "level"),
    [
        (QuantType.QUInt8, QuantType.QInt8, True, FLOATS),
        (QuantType.QUInt8, QuantType.QInt8, True, INTEGERS),
        (QuantType.QInt8, QuantType.QInt8, False, FLOATS),
        (QuantType.QInt8, QuantType.QInt8, False, INTEGERS),
        (QuantType.QUInt8, QuantType.QUInt8, False, FLOATS),
    ],
)
def test_every_code_is_that_of_onnxruntime(
    tmp_path: Path,
    activations: QuantType,
    weights: QuantType,
    per_channel: bool,
    level: ort.GraphOptimizationLevel,
) -> None:
    """Asymmetric activations, weights with and without zero points, scales by channel."""
    path = quantised(
        cnn(),
        tmp_path,
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=weights,
        per_channel=per_channel,
        reduce_range=True,  # products of pairs saturate in the kernels of some machines otherwise
    )
    result = compiled(path)
    found = differences(path, result, images(3, seed=7), level)
    assert {name.split("_")[0] for name in found} >= {"r1", "r2", "c3", "ra", "u", "cat", "c5", "m"}
    assert not any(found.values()), found


def test_codes_have_no_zero_point(tmp_path: Path) -> None:
    """A uint8 tensor with zero point z has the codes -z..255-z."""
    path = quantised(cnn(), tmp_path, quant_format=QuantFormat.QDQ)
    graph = compiled(path).integer_graph
    limits = [kind.limits for kind in graph.types.values() if kind.limits is not None]
    spans = {(limit.low[0], limit.high[0]) for limit in limits}
    assert spans
    assert all(high - low == 255 and low < 0 for low, high in spans if low > -256)
    assert graph.types["r1_QuantizeLinear_Output"].element == IntType(8, signed=False)


def test_float_graph_is_that_of_onnxruntime(tmp_path: Path) -> None:
    path = quantised(cnn(), tmp_path, quant_format=QuantFormat.QDQ, per_channel=True)
    (feed,) = images(1, seed=3)
    np.testing.assert_allclose(float_outputs(path, feed)["y"], run(path, feed), atol=1e-6)


def test_float_outputs_are_equal(tmp_path: Path) -> None:
    """The DequantizeLinear at the end is one float32 multiplication in both."""
    path = quantised(cnn(), tmp_path, quant_format=QuantFormat.QDQ)
    executor = Executor(compiled(path).integer_graph)
    for feed in images(3, seed=9):
        np.testing.assert_array_equal(executor.run(feed)["y"], run(path, feed))


def _pair(x: str, y: str, scale: str, zero: str) -> list:  # type: ignore[type-arg]
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{y}.q"], name=f"{y}.q"),
        node("DequantizeLinear", [f"{y}.q", scale, zero], [y], name=f"{y}.dq"),
    ]


def test_average_pool_differs_only_in_ties(tmp_path: Path) -> None:
    """Sums of four codes are at a tie in one of four cases: ours goes up, theirs to even."""
    constants = {"s": np.float32(0.0123), "z": np.uint8(37)}
    nodes = [
        *_pair("x", "a", "s", "z"),
        node("AveragePool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        *_pair("p", "y", "s", "z"),
    ]
    path = save(model_of(nodes, constants, (1, 3, 12, 12)), tmp_path)
    result = compiled(path)
    (feed,) = images(1)
    theirs = onnxruntime_codes(path, feed)
    ours = our_codes(result.integer_graph, feed)
    sums = theirs["a.q"].reshape(1, 3, 6, 2, 6, 2).sum(axis=(3, 5))
    np.testing.assert_array_equal(ours["y"], np.floor(sums / 4 + 0.5))
    different = ours["y"] != theirs["y.q"]
    assert different.any()
    assert (sums[different] % 4 == 2).all()
    assert (ours["y"] - theirs["y.q"])[different].tolist() == [1] * int(different.sum())


def test_six_bits_said_by_a_clip(tmp_path: Path) -> None:
    """QCDQ of Brevitas: the Clip narrows activations and weights."""
    rng = np.random.default_rng(0)
    constants = {
        "sx": np.float32(0.021), "z": np.int8(0), "low": np.int8(-31), "high": np.int8(31),
        "zu": np.uint8(0), "ulow": np.uint8(0), "uhigh": np.uint8(63), "sy": np.float32(0.03),
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "sw": rng.uniform(0.03, 0.06, 4).astype(np.float32), "zw": np.zeros(4, np.int8),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "sx", "z"], ["xq"]),
        node("Clip", ["xq", "low", "high"], ["xc"], name="clip_x"),
        node("DequantizeLinear", ["xc", "sx", "z"], ["xd"]),
        node("QuantizeLinear", ["w", "sw", "zw"], ["wq"], axis=0),
        node("Clip", ["wq", "low", "high"], ["wc"]),
        node("DequantizeLinear", ["wc", "sw", "zw"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "sy", "zu"], ["rq"]),
        node("Clip", ["rq", "ulow", "uhigh"], ["rc"], name="clip_r"),
        node("DequantizeLinear", ["rc", "sy", "zu"], ["y"]),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8)), tmp_path)
    result = compiled(path)
    graph = result.integer_graph
    conv = graph.by_name["conv"]
    assert graph.types[conv.inputs[0]].element == IntType(6, narrow=True)
    assert graph.types[conv.inputs[1]].element == IntType(6, narrow=True)
    assert graph.types[conv.output].element == IntType(6, signed=False)
    rng = np.random.default_rng(1)
    for _ in range(4):
        feed = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
        codes = our_codes(graph, feed)[conv.output.removesuffix(".codes")]
        np.testing.assert_array_equal(codes, np.rint(run(path, feed) / 0.03))
        assert codes.max() <= 63


def test_equal_pairs_around_movement_cost_nothing(tmp_path: Path) -> None:
    constants = {"s": np.float32(0.02), "z": np.uint8(9), "f": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        *_pair("x", "a", "s", "z"),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        *_pair("p", "b", "s", "z"),
        node("Resize", ["b", "", "f"], ["u"], mode="nearest", name="up"),
        *_pair("u", "y", "s", "z"),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8)), tmp_path)
    result = compiled(path)
    kinds = [op.kind for op in result.integer_graph.ops]
    assert kinds == ["Quantize", "MaxPool", "NearestResize", "Dequantize"]
    for feed in images(2, 8):
        theirs = run(path, feed)
        np.testing.assert_array_equal(Executor(result.integer_graph).run(feed)["y"], theirs)


def test_concat_of_different_scales_rescales_visibly(tmp_path: Path) -> None:
    constants = {
        "s1": np.float32(0.011), "z1": np.uint8(20), "s2": np.float32(0.017), "z2": np.uint8(77),
        "s3": np.float32(0.019), "z3": np.uint8(60),
    }  # fmt: skip
    nodes = [
        *_pair("x", "a", "s1", "z1"),
        node("Neg", ["a"], ["n"]),
        *_pair("n", "b", "s2", "z2"),
        node("Concat", ["a", "b"], ["c"], axis=1),
        *_pair("c", "y", "s3", "z3"),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8)), tmp_path)
    result = compiled(path)
    assert [op.kind for op in result.integer_graph.ops].count("Rescale") == 3  # Neg is one of them
    found = differences(path, result, images(3, 8))
    assert found["b.q"] == 0
    for feed in images(3, 8):
        ours = our_codes(result.integer_graph, feed)["y"]
        np.testing.assert_array_equal(ours, onnxruntime_codes(path, feed)["y.q"])


def test_codes_that_move_before_they_are_read(tmp_path: Path) -> None:
    """Transpose, Pad (by a code), MaxPool and Concat between the pair."""
    constants = {
        "s": np.float32(0.013), "z": np.uint8(31),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64), "code": np.uint8(200),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Pad", ["q", "pads", "code"], ["padded"], name="pad"),
        node("MaxPool", ["padded"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", ["pooled"], ["t"], perm=[0, 1, 3, 2]),
        node("Concat", ["t", "t"], ["cat"], axis=1),
        node("DequantizeLinear", ["cat", "s", "z"], ["y"]),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8)), tmp_path)
    executor = Executor(compiled(path).integer_graph)
    for feed in images(2, 8):
        np.testing.assert_array_equal(executor.run(feed)["y"], run(path, feed))


def test_codes_read_with_another_scale(tmp_path: Path) -> None:
    constants = {
        "s": np.float32(0.013), "z": np.uint8(31), "s2": np.float32(0.021), "z2": np.uint8(90)
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s2", "z2"], ["y"]),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8)), tmp_path)
    executor = Executor(compiled(path).integer_graph)
    for feed in images(2, 8):
        np.testing.assert_array_equal(executor.run(feed)["y"], run(path, feed))


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_gemm_with_scales_by_column(tmp_path: Path, transposed: int, axis: int) -> None:
    """Behind a Flatten, with transB, int32 bias and sixteen-bit activations."""
    rng = np.random.default_rng(2)
    codes = rng.integers(-127, 128, (48, 10)).astype(np.int8)
    scales = rng.uniform(0.001, 0.004, 10).astype(np.float32)
    constants = {
        "s": np.float32(1 / 255), "z": np.uint8(0), "w": codes.T if transposed else codes,
        "sw": scales, "zw": np.zeros(10, np.int8), "b": rng.integers(-3000, 3000, 10, np.int32),
        "sb": scales * np.float32(1 / 255), "zb": np.zeros(10, np.int32),
        "sy": np.float32(0.0004), "zy": np.uint16(32768),
    }  # fmt: skip
    nodes = [
        *_pair("x", "a", "s", "z"),
        node("Flatten", ["a"], ["f"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=axis),
        node("DequantizeLinear", ["b", "sb", "zb"], ["bd"], axis=0),
        node("Gemm", ["f", "wd", "bd"], ["g"], transB=transposed, name="gemm"),
        *_pair("g", "y", "sy", "zy"),
    ]
    path = save(model_of(nodes, constants, (1, 3, 4, 4), opset=21), tmp_path)
    result = compiled(path)
    assert result.integer_graph.types["y.codes"].element == IntType(16)
    total = 0
    for feed in images(8, 4):
        ours = our_codes(result.integer_graph, feed)["y"]
        difference = np.abs(ours - onnxruntime_codes(path, feed)["y.q"])
        assert difference.max() <= 1
        total += int(np.count_nonzero(difference))
    assert total <= 1  # float32 sums are off by hundredths of so small a step


@pytest.mark.parametrize("element", [TensorProto.UINT8, TensorProto.INT8])
def test_integer_inputs(tmp_path: Path, element: int) -> None:
    """A network that takes codes: pixels are the codes, or 128 more than signed ones."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    constants = {"s": np.float32(0.0213), "z": np.array(5, dtype), "sy": np.float32(0.031)}
    nodes = [
        node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        node("LeakyRelu", ["a"], ["r"], alpha=0.23),
        *_pair("r", "y", "sy", "z"),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8), element=element), tmp_path)
    graph = compiled(path, input_kind="uint8").integer_graph
    pixels = np.arange(192).reshape(1, 3, 8, 8) + 30
    codes: Array = pixels if element == TensorProto.UINT8 else pixels - 128
    ours = our_codes(graph, {"x": pixels.astype(np.uint8)})["y"]
    theirs = onnxruntime_codes(path, {"x": codes.astype(dtype)})["y.q"]
    np.testing.assert_array_equal(ours, theirs)


def test_half_precision(tmp_path: Path) -> None:
    """fp16 weights are widened; scales of fp16 pairs are exact."""
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float16),
        "s": np.float16(0.0123), "z": np.uint8(128), "sw": np.float16(0.02), "zw": np.int8(0),
    }  # fmt: skip
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        *_pair("h", "a", "s", "z"),
        node("QuantizeLinear", ["w", "sw", "zw"], ["wq"]),
        node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"]),
        node("Conv", ["a", "wd"], ["c"], name="conv"),
        node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    path = save(model_of(nodes, constants, (1, 3, 8, 8), opset=19), tmp_path)
    graph = compiled(path).integer_graph
    conv = graph.by_name["conv"]
    weights = graph.types[conv.inputs[1]]
    assert weights.quantization is not None
    assert weights.quantization.scale == (float(np.float16(0.02)),)
    real = graph.constants[conv.inputs[1]] * float(np.float16(0.02))
    assert np.abs(real - np.clip(constants["w"], -2.56, 2.54)).max() <= 0.0101


def test_convolutions_differ_only_next_to_ties(tmp_path: Path) -> None:
    """Many sums: ours are right but for 2**-24 of the range, theirs as far as float32 goes."""
    rng = np.random.default_rng(12)
    scales = {"s": np.float32(0.0173), "sw": np.float32(0.0031), "sy": np.float32(0.0617)}
    codes = rng.integers(-127, 128, (16, 8, 3, 3)).astype(np.int8)
    constants = {
        **scales, "z": np.uint8(93), "w": codes, "zw": np.int8(0), "zy": np.uint8(128),
    }  # fmt: skip
    nodes = [
        *_pair("x", "a", "s", "z"),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wd"]),
        node("Conv", ["a", "wd"], ["c"], name="conv"),
        *_pair("c", "y", "sy", "zy"),
    ]
    path = save(model_of(nodes, constants, (1, 8, 66, 66)), tmp_path)
    result = compiled(path)
    unit = float(scales["s"]) * float(scales["sw"]) / float(scales["sy"])
    for _ in range(3):
        feed = {"x": rng.integers(-93, 163, (1, 8, 66, 66)).astype(np.float32) * scales["s"]}
        theirs = onnxruntime_codes(path, feed)
        ours = our_codes(result.integer_graph, feed)
        np.testing.assert_array_equal(ours["x"], theirs["a.q"])
        windows = np.lib.stride_tricks.sliding_window_view(theirs["a.q"][0], (3, 3), axis=(1, 2))
        steps = np.einsum("chwij,mcij->mhw", windows, codes.astype(np.int64))[None] * unit
        distance = np.abs(steps - np.floor(steps) - 0.5)
        exact = np.clip(np.floor(steps + 0.5), -128, 127)
        wrong, different = ours["y"] != exact, ours["y"] != theirs["y.q"]
        assert (distance[wrong] <= 128 / 2**24).all()
        assert (distance[different] <= 1e-4).all()
        assert different.sum() <= 5
