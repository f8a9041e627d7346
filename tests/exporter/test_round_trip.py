"""What is exported can be imported again, and is the same integer network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from tests.exporter.networks import DIALECTS, model_of


def plain_unet() -> onnx.ModelProto:
    """Without a norm behind a ReLU, whose codes begin elsewhere in every channel."""
    rng = np.random.default_rng(11)
    constants = {
        "w1": rng.normal(0, 0.4, (5, 1, 3, 3)),
        "b1": rng.normal(0, 0.1, 5),
        "w2": rng.normal(0, 0.3, (5, 5, 3, 3)),
        "b2": rng.normal(0, 0.1, 5),
        "w3": rng.normal(0, 0.4, (5, 4, 2, 2)),
        "b3": rng.normal(0, 0.1, 4),
        "w4": rng.normal(0, 0.4, (2, 9, 1, 1)),
        "b4": rng.normal(0, 0.1, 2),
        "scales": np.array([1, 1, 2, 2]),
    }
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("AveragePool", ["r1"], ["p1"], "pool1", **pool),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2", **pads),
        helper.make_node("Add", ["c2", "p1"], ["sum"], "add"),
        helper.make_node("LeakyRelu", ["sum"], ["r2"], "leaky", alpha=0.1),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", **pool),
        helper.make_node("Resize", ["p2", "", "scales"], ["up"], "resize", mode="linear"),
        helper.make_node("Concat", ["up", "r2"], ["both"], "concat", axis=1),
        helper.make_node("Slice", ["both", "from", "to", "axes"], ["part"], "slice"),
        helper.make_node("ConvTranspose", ["part", "w3", "b3"], ["d"], "transposed", **pool),
        helper.make_node("Concat", ["d", "r1"], ["skip"], "skips", axis=1),
        helper.make_node("Conv", ["skip", "w4", "b4"], ["logits"], "head"),
        helper.make_node("Sigmoid", ["logits"], ["mask"], "sigmoid"),
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(data, dtype="float32"), name)
        for name, data in constants.items()
    ]
    initializers += [
        numpy_helper.from_array(np.array([value]), name)
        for name, value in (("from", 3), ("to", 8), ("axes", 1))
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 16, 16])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 2, 16, 16])
    graph = helper.make_graph(nodes, "plain-unet", [image], [mask], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("target", DIALECTS)
@pytest.mark.parametrize(
    "options",
    [
        {"wbits": 8, "abits": 8},
        {"wbits": 4, "abits": 6},
        {"wbits": "ternary", "abits": 5},
        {"wbits": 3, "abits": 5, "effort": "normal"},
        {"wbits": 5, "abits": 8, "quantizer": "fixed"},
    ],
    ids=str,
)
def test_codes_survive_export_and_import(
    target: Target, options: dict[str, Any], tmp_path: Path
) -> None:
    source, exported = tmp_path / "net.onnx", tmp_path / "exported.onnx"
    onnx.save(plain_unet(), str(source))
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (6, 1, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "calib.npz", x=pixels[:, 0])
    chosen = {"effort": "nearest", **options, "calib": f"{tmp_path / 'calib.npz'}:x"}
    result = compile_model(source, CompileOptions(target=target, **chosen))
    exported.write_bytes(model_of(result).SerializeToString())
    again = compile_model(exported, CompileOptions(target=Target.SIM, input_kind="uint8"))
    before, after = Executor(result.integer_graph), Executor(again.integer_graph)
    for image in pixels:
        feed = {"image": image[None]}
        expected, actual = before.run(feed)["mask"], after.run(feed)["mask"]
        np.testing.assert_array_equal(actual, expected)
        assert len(np.unique(expected)) > 8
