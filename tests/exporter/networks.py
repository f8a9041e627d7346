"""A small network with most of what exporting has to get right, and its compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult

SIZE = 12
DIALECTS = (Target.QDQ, Target.QCDQ, Target.QONNX)


def small_unet(channels: int = 3) -> onnx.ModelProto:
    """Encoder, norm behind a ReLU, linear resize, skip by Concat, Add, PRelu, sigmoid head."""
    rng = np.random.default_rng(3)
    constants: dict[str, Any] = {
        "w1": rng.normal(0, 0.4, (6, channels, 3, 3)),
        "b1": rng.normal(0, 0.1, 6),
        "gamma": rng.uniform(0.5, 1.5, 6),
        "beta": rng.normal(0, 0.2, 6),
        "mean": rng.normal(0.3, 0.1, 6),
        "var": rng.uniform(0.05, 0.2, 6),
        "w2": rng.normal(0, 0.2, (6, 6, 3, 3)),
        "b2": rng.normal(0, 0.1, 6),
        "slope": rng.uniform(0.05, 0.4, (6, 1, 1)),
        "w3": rng.normal(0, 0.2, (12, 3, 2, 2)),
        "b3": rng.normal(0, 0.1, 6),
        "scales": np.array([1, 1, 2, 2]),
        "w4": rng.normal(0, 0.3, (1, 12, 1, 1)),
        "b4": rng.normal(0, 0.1, 1),
    }
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "enc/conv", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], "enc/relu"),
        helper.make_node(
            "BatchNormalization", ["r1", "gamma", "beta", "mean", "var"], ["n1"], "enc/norm"
        ),
        helper.make_node(
            "MaxPool", ["n1"], ["p1"], "enc/pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "mid/conv", **pads),
        helper.make_node("PRelu", ["c2", "slope"], ["r2"], "mid/prelu"),
        helper.make_node("Add", ["r2", "p1"], ["sum"], "mid/add"),
        helper.make_node("Concat", ["sum", "p1"], ["both"], "mid/concat", axis=1),
        helper.make_node(
            "ConvTranspose",
            ["both", "w3", "b3"],
            ["up1"],
            "dec/up",
            kernel_shape=[2, 2],
            strides=[2, 2],
            group=2,
        ),
        helper.make_node("Resize", ["sum", "", "scales"], ["up2"], "dec/resize", mode="linear"),
        helper.make_node("Concat", ["up1", "up2"], ["skip"], "dec/concat", axis=1),
        helper.make_node("Conv", ["skip", "w4", "b4"], ["logits"], "head/conv"),
        helper.make_node("Sigmoid", ["logits"], ["mask"], "head/sigmoid"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, SIZE, SIZE])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, SIZE, SIZE])
    initializers = [
        numpy_helper.from_array(np.asarray(data, dtype="float32"), name)
        for name, data in constants.items()
    ]
    graph = helper.make_graph(nodes, "small-unet", [image], [mask], initializers)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def images(channels: int = 3) -> np.ndarray[Any, Any]:
    """Pixels of smooth random images, [N, H, W, C]."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (4, SIZE // 4, SIZE // 4, channels)).astype(np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def compiled(folder: Path, target: Target, **options: Any) -> CompileResult:
    """`small_unet` compiled for an ONNX target, with calibration."""
    path = folder / "net.onnx"
    onnx.save(small_unet(), str(path))
    np.savez(folder / "calib.npz", x=images())
    options = {"calib": f"{folder / 'calib.npz'}:x", "effort": "nearest", **options}
    return compile_model(path, CompileOptions(target=target, **options))


def model_of(result: CompileResult) -> onnx.ModelProto:
    """The exported model."""
    content = result.artifacts.files["model.onnx"]
    assert isinstance(content, bytes)
    return onnx.load_from_string(content)


def constants_of(model: onnx.ModelProto) -> dict[str, Any]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def nodes_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}
