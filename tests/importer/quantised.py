"""Quantised models for the importer's tests, and what onnxruntime computes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from qcompile.types import Array

FLOATS = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
"""Every node for itself: QDQ models compute with floats between the pairs."""
INTEGERS = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
"""Pairs around an operator become integer kernels."""

ZERO_POINTS = {
    "QuantizeLinear": 2,
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearConcat": 1,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QLinearMul": 7,
}
"""Where the nodes that write codes have their zero point; the others have it at 4."""


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(model, path)
    return path


def model_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    shape: Sequence[int],
    output: str = "y",
    opset: int = 13,
    element: int = onnx.TensorProto.FLOAT,
    result: int = onnx.TensorProto.FLOAT,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model with input x of `shape` and one output."""
    graph = helper.make_graph(
        list(nodes),
        "quantised",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info(output, result, None)],
        [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def cnn(seed: int = 0, size: int = 12, transposed: bool = True) -> onnx.ModelProto:
    """A float network with a convolution of each kind, pooling, joins and a gate."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Array] = {}
    node = helper.make_node

    def conv(kind: str, name: str, x: str, y: str, *shape: int, **attributes: Any) -> Any:
        spread = np.sqrt(np.prod(shape[1:]))
        constants[f"{name}.w"] = (rng.standard_normal(shape) / spread * 1.5).astype(np.float32)
        filters = shape[1] if kind == "ConvTranspose" else shape[0]
        constants[f"{name}.b"] = (rng.standard_normal(filters) * 0.2).astype(np.float32)
        return node(kind, [x, f"{name}.w", f"{name}.b"], [y], name=name, **attributes)

    same = {"pads": [1, 1, 1, 1]}
    up = (
        conv("ConvTranspose", "up", "ra", "u", 8, 8, 2, 2, strides=[2, 2])
        if transposed
        else node("Resize", ["ra", "", "factors"], ["u"], name="up", mode="nearest")
    )
    constants["factors"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        conv("Conv", "conv1", "x", "c1", 8, 3, 3, 3, **same),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        conv("Conv", "conv2", "p1", "c2", 8, 8, 3, 3, **same),
        node("LeakyRelu", ["c2"], ["r2"], name="leaky", alpha=0.1),
        conv("Conv", "depthwise", "r2", "c3", 8, 1, 3, 3, group=8, **same),
        node("Add", ["c3", "r2"], ["a"], name="add"),
        node("Relu", ["a"], ["ra"], name="relu2"),
        up,
        node("Concat", ["u", "r1"], ["cat"], name="cat", axis=1),
        conv("Conv", "conv5", "cat", "c5", 8, 16, 3, 3, **same),
        node("Sigmoid", ["c5"], ["s5"], name="gate"),
        node("Mul", ["c5", "s5"], ["m"], name="mul"),
        conv("Conv", "head", "m", "y", 2, 8, 1, 1),
    ]
    used = {value for item in nodes for value in item.input}
    kept = {name: data for name, data in constants.items() if name in used}
    return onnx.shape_inference.infer_shapes(model_of(nodes, kept, (1, 3, size, size)))


def images(count: int, size: int = 12, seed: int = 1) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    shape = (count, 1, 3, size, size)
    return [{"x": image} for image in (rng.integers(0, 256, shape) / 255).astype(np.float32)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._feeds: Iterator[Mapping[str, Array]] = iter(feeds)

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._feeds, None)


def quantised(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    """What onnxruntime's static quantisation makes of a model."""
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess
    source, target = save(model, folder, "float.onnx"), folder / "quantised.onnx"
    size = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    quantize_static(source, target, _Reader(images(8, size)), **options)
    return target


def onnxruntime_codes(
    path: Path, feed: Mapping[str, Array], level: ort.GraphOptimizationLevel = FLOATS
) -> dict[str, Array]:
    """Every tensor of codes that the model computes, without its zero point."""
    model = onnx.load(path)
    known = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    zeros: dict[str, Array] = {}
    outputs = {item.name for item in model.graph.output}
    for node in model.graph.node:
        if node.op_type not in ZERO_POINTS and not node.op_type.startswith("QLinear"):
            continue
        position = ZERO_POINTS.get(node.op_type, 4)
        if len(node.input) <= position and node.op_type == "QGemm":
            continue
        zero = known[node.input[position]] if len(node.input) > position else np.uint8(0)
        zeros[node.output[0]] = np.asarray(zero)
        if node.output[0] not in outputs:
            element = helper.np_dtype_to_tensor_dtype(np.asarray(zero).dtype)
            value = helper.make_tensor_value_info(node.output[0], element, None)
            model.graph.output.append(value)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_outputs()]
    results = dict(zip(names, session.run(names, dict(feed)), strict=True))
    return {name: results[name].astype(np.int64) - int(zero) for name, zero in zeros.items()}


def compiled(path: Path, **options: Any) -> CompileResult:
    """For the simulator, with the model's own float input unless said otherwise."""
    return compile_model(
        path, CompileOptions(**{"target": "sim", "input_kind": "float32"} | options)
    )


def our_codes(graph: Graph, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Every activation of an integer graph, by the name of the real value."""
    values = Executor(graph).run(feed, taps="all")
    return {
        name.removesuffix(".codes"): data.astype(np.int64)
        for name, data in values.items()
        if not graph.types[name].is_float
    }


def differences(path: Path, result: CompileResult, feeds: Sequence[Mapping[str, Array]],
                level: ort.GraphOptimizationLevel = FLOATS) -> dict[str, int]:  # fmt: skip
    """How many codes of each tensor differ from onnxruntime's; tensors of the same name in both."""
    counts: dict[str, int] = {}
    for feed in feeds:
        theirs = onnxruntime_codes(path, feed, level)
        ours = our_codes(result.integer_graph, feed)
        for name in theirs.keys() & ours.keys():
            different = int(np.count_nonzero(ours[name] != theirs[name]))
            counts[name] = counts.get(name, 0) + different
    return counts


def float_outputs(path: Path, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of the imported model in our float executor."""
    return Executor(import_model(path)).run(feed)


def run(path: Path, feed: Mapping[str, Array]) -> Array:
    """The first output in onnxruntime, node for node."""
    options = ort.SessionOptions()
    options.graph_optimization_level = FLOATS
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(feed))[0])
