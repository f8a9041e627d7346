"""A small network with attention over windows of the image and over all tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array

SIZE, TOKENS, CHANNELS = 8, 4, 4
"""Pixels and tokens of a side."""


class Nodes:
    """Nodes and constants of a model that grows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.numbers = np.random.default_rng(5)

    def constant(self, data: object, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(data, dtype)
        return name

    def weights(self, *shape: int, gain: float = 1.0) -> str:
        return self.constant(gain * self.numbers.standard_normal(shape))

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        domain = "qcompile" if kind == "LocalAttention2d" else ""
        name = name or f"/{kind}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [output], name, domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(shape, "int64"))

    def slice(self, x: str, start: int, stop: int, axis: int) -> str:
        ends = (self.constant([value], "int64") for value in (start, stop, axis))
        return self.add("Slice", x, *ends)

    def attention(self, x: str, channels: int, name: str) -> str:
        """Over the tokens of x [.., tokens, channels], with sharp scores."""
        q, k, v = (
            self.add("MatMul", x, self.weights(channels, channels, gain=1.5)) for _ in range(3)
        )
        keys = self.add("Transpose", k, perm=[0, 2, 1])
        scores = self.add("MatMul", q, keys)
        return self.add("MatMul", self.add("Softmax", scores, axis=-1, name=name), v)

    def model(
        self, output: str, shape: Sequence[int], inputs: Mapping[str, Sequence[int]]
    ) -> bytes:
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["output"])],
            "attention",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(data, name) for name, data in self.constants.items()],
        )
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("qcompile", 1)]
        return bytes(helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString())


def save_model(path: Path, windows: bool = True, name: str = "../all<b>") -> Path:
    """Local attention of 2 heads over 3 x 3 windows, then attention over 4 x 4 patches and a class
    token, called `name`; without `windows` over rolled windows of 2 x 2 patches instead."""
    net = Nodes()
    x = net.add("Conv", "input", net.weights(CHANNELS, 1, 1, 1, gain=3.0))
    if windows:
        q, k, v = (net.add("Conv", x, net.weights(CHANNELS, CHANNELS, 1, 1)) for _ in range(3))
        local = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "heads": 2}
        r = net.weights(CHANNELS, 3, 3, gain=0.3)
        x = net.add("LocalAttention2d", q, k, v, r, name="/local", **local)
    weights = net.weights(CHANNELS, CHANNELS, 2, 2)
    x = net.add("Conv", x, weights, strides=[2, 2])
    if windows:
        x = net.add("Transpose", net.reshape(x, 1, CHANNELS, -1), perm=[0, 2, 1])
        x = net.add("Concat", net.weights(1, 1, CHANNELS), x, axis=1)
        x = net.slice(net.attention(x, CHANNELS, name), 1, 17, 1)
    else:
        x = net.add("Transpose", x, perm=[0, 2, 3, 1])
        for axis in (1, 2):
            x = net.add("Concat", net.slice(x, 1, 4, axis), net.slice(x, 0, 1, axis), axis=axis)
        x = net.add("Transpose", net.reshape(x, 2, 2, 2, 2, CHANNELS), perm=[0, 2, 1, 3, 4])
        x = net.attention(net.reshape(x, 4, 4, CHANNELS), CHANNELS, name)
        x = net.reshape(x, 1, 16, CHANNELS)
    x = net.add("Transpose", x, perm=[0, 2, 1])
    x = net.add("Conv", net.reshape(x, 1, CHANNELS, 4, 4), net.weights(2, CHANNELS, 1, 1))
    path.write_bytes(net.model(x, (1, 2, 4, 4), {"input": (1, 1, SIZE, SIZE)}))
    return path


def save_gated(path: Path) -> Path:
    """An attention U-Net of one level (Oktay et al., 2018): a gate of half the size that is resized
    and expanded over the channels of the skip; a gate for each channel and pixel; squeeze and
    excitation, which weighs no pixels."""
    net = Nodes()
    skip = net.add("Relu", net.add("Conv", "input", net.weights(CHANNELS, 1, 1, 1)))
    deep = net.add("Relu", net.add("Conv", skip, net.weights(6, CHANNELS, 2, 2), strides=[2, 2]))
    both = net.add(
        "Add",
        net.add("Conv", skip, net.weights(3, CHANNELS, 2, 2), strides=[2, 2]),
        net.add("Conv", deep, net.weights(3, 6, 1, 1)),
    )
    psi = net.add("Conv", net.add("Relu", both), net.weights(1, 3, 1, 1, gain=9.0))
    gate = net.add("Sigmoid", psi, name="/gate")
    scales = net.constant([1, 1, 2, 2])
    gate = net.add("Resize", gate, "", scales, mode="linear")
    gate = net.add("Expand", gate, net.constant([1, CHANNELS, SIZE, SIZE], "int64"))
    x = net.add("Mul", gate, skip)
    pooled = net.add("GlobalAveragePool", x)
    excited = net.add("Sigmoid", net.add("Conv", pooled, net.weights(CHANNELS, CHANNELS, 1, 1)))
    x = net.add("Mul", x, excited)
    scores = net.add("Conv", x, net.weights(CHANNELS, CHANNELS, 1, 1, gain=9.0))
    x = net.add("Mul", x, net.add("HardSigmoid", scores, name="/full"))
    x = net.add("Conv", x, net.weights(2, CHANNELS, 1, 1))
    path.write_bytes(net.model(x, (1, 2, SIZE, SIZE), {"input": (1, 1, SIZE, SIZE)}))
    return path
