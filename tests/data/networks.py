"""Small networks of any input size, for tests of tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Layers = Callable[["Maker"], str]


class Maker:
    """Collects nodes; every method returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, data: np.ndarray) -> str:  # type: ignore[type-arg]
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def conv(self, x: str, channels: tuple[int, int], kernel: int = 3, **attributes: object) -> str:
        shape = (channels[1], channels[0], kernel, kernel)
        weights = self._random.normal(0, 1 / (channels[0] * kernel), shape).astype(np.float32)
        bias = self._random.normal(0, 0.1, channels[1]).astype(np.float32)
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.node("Conv", [x, self.constant(weights), self.constant(bias)], **attributes)

    def relu_conv(self, x: str, channels: tuple[int, int], **attributes: object) -> str:
        return self.node("Relu", [self.conv(x, channels, **attributes)])  # type: ignore[arg-type]

    def pool(self, x: str) -> str:
        return self.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def up(self, x: str, channels: int, kernel: int = 2, pad: int = 0) -> str:
        weights = self._random.normal(0, 0.4, (channels, channels, kernel, kernel))
        return self.node(
            "ConvTranspose",
            [x, self.constant(weights.astype(np.float32))],
            strides=[2, 2],
            pads=[pad] * 4,
        )

    def resize(self, x: str, mode: str, coordinates: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        empty = self.constant(np.array([], np.float32))
        return self.node(
            "Resize", [x, empty, scales], mode=mode, coordinate_transformation_mode=coordinates
        )


def pooled_unet(make: Maker) -> str:
    """Two levels down with MaxPool, up with ConvTranspose 2x2, skips."""
    first = make.relu_conv("input", (1, 4))
    second = make.relu_conv(
        make.node("MaxPool", [first], kernel_shape=[2, 2], strides=[2, 2]), (4, 4)
    )
    third = make.relu_conv(
        make.node("MaxPool", [second], kernel_shape=[2, 2], strides=[2, 2]), (4, 4)
    )
    x = make.node("Concat", [make.up(third, 4), second], axis=1)
    x = make.relu_conv(x, (8, 4))
    x = make.node("Concat", [make.up(x, 4), first], axis=1)
    return make.conv(x, (8, 2), kernel=1)


def strided_nearest(make: Maker) -> str:
    """Strided convolution down, nearest up, a residual sum, dilation."""
    down = make.relu_conv("input", (1, 4), strides=[2, 2])
    more = make.relu_conv(down, (4, 4), dilations=[2, 2], pads=[2, 2, 2, 2])
    x = make.resize(make.node("Add", [down, more]), "nearest", "asymmetric")
    return make.conv(x, (4, 2))


def strided_linear(make: Maker) -> str:
    """Average pool down, bilinear up, a wide transposed convolution."""
    x = make.node("AveragePool", ["input"], kernel_shape=[2, 2], strides=[2, 2])
    x = make.relu_conv(x, (1, 4))
    x = make.resize(x, "linear", "half_pixel")
    x = make.relu_conv(x, (4, 4), strides=[2, 2])
    x = make.up(x, 4, kernel=4, pad=1)
    return make.conv(x, (4, 2), kernel=1)


def valid_crops(make: Maker) -> str:
    """Padding in front, valid convolutions, a sum with a cropped copy."""
    pads = make.constant(np.array([0, 0, 2, 2, 0, 0, 2, 2], np.int64))
    padded = make.node("Pad", ["input", pads], mode="reflect")
    x = make.relu_conv(padded, (1, 4), pads=[0, 0, 0, 0])
    x = make.relu_conv(x, (4, 4), pads=[0, 0, 0, 0])
    y = make.conv("input", (1, 4), kernel=1)
    return make.conv(make.node("Add", [x, y]), (4, 2), kernel=5)


def aligned_corners(make: Maker) -> str:
    """A resize that does not shift with the image."""
    x = make.relu_conv("input", (1, 4), strides=[2, 2])
    return make.conv(make.resize(x, "linear", "align_corners"), (4, 2))


def gated(make: Maker) -> str:
    """A global mean multiplied on."""
    x = make.relu_conv("input", (1, 4), strides=[2, 2])
    gate = make.node("Sigmoid", [make.conv(make.node("GlobalAveragePool", [x]), (4, 4), kernel=1)])
    x = make.resize(make.node("Mul", [x, gate]), "nearest", "asymmetric")
    return make.conv(x, (4, 2))


def save(layers: Layers, path: Path, seed: int = 0) -> Path:
    """Writes the network with dynamic height and width, one input channel."""
    make = Maker(seed)
    last = layers(make)
    make.nodes[-1].output[0] = "output"
    assert make.nodes[-1].name == last
    graph = helper.make_graph(
        make.nodes,
        layers.__name__,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        make.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
