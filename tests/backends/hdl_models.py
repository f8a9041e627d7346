"""Small ONNX networks that an accelerator can be made of, and their way through the compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.data import random_feeds
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.types import Array


@dataclass
class Net:
    """A network that grows node by node; every layer returns the name of its output."""

    inputs: Mapping[str, tuple[int, ...]]
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.channels.update({name: shape[1] for name, shape in self.inputs.items()})

    def constant(self, data: Any, dtype: str = "float32") -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(data, dtype=dtype)
        return name

    def add(self, kind: str, *inputs: str, channels: int | None = None, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], f"/{name}", **attributes))
        self.channels[name] = self.channels[inputs[0]] if channels is None else channels
        return name

    def conv(
        self, x: str, filters: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
    ) -> str:
        shape = (filters, self.channels[x] // groups, kernel, kernel)
        weights = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = self.rng.standard_normal(filters) * 0.2
        pads = [kernel // 2] * 4
        return self.add(
            "Conv",
            x,
            self.constant(weights),
            self.constant(bias),
            channels=filters,
            strides=[stride] * 2,
            pads=pads,
            group=groups,
        )

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def norm(self, x: str) -> str:
        count = self.channels[x]
        gains = self.rng.uniform(0.5, 1.5, count) * self.rng.choice([1, 1, -1], count)
        shifts, means = self.rng.standard_normal((2, count)) * 0.3
        variances = self.rng.uniform(0.5, 1.5, count)
        parameters = [self.constant(p) for p in (gains, shifts, means, variances)]
        return self.add("BatchNormalization", x, *parameters)

    def block(self, x: str, filters: int) -> str:
        return self.relu(self.conv(x, filters))

    def pool(self, x: str) -> str:
        return self.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def up(self, x: str, filters: int) -> str:
        weights = self.rng.standard_normal((self.channels[x], filters, 2, 2)) * 0.5
        return self.add(
            "ConvTranspose", x, self.constant(weights), channels=filters, strides=[2, 2]
        )

    def resize(self, x: str, mode: str) -> str:
        scales = self.constant([1, 1, 2, 2])
        away = "asymmetric" if mode == "nearest" else "half_pixel"
        attributes: dict[str, Any] = {"nearest_mode": "floor"} if mode == "nearest" else {}
        return self.add(
            "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=away, **attributes
        )

    def concat(self, *values: str) -> str:
        channels = sum(self.channels[value] for value in values)
        return self.add("Concat", *values, channels=channels, axis=1)

    def gate(self, x: str) -> str:
        """Squeeze and excitation."""
        squeezed = self.block_of_one(self.add("GlobalAveragePool", x), 4)
        return self.add("Mul", x, self.add("Sigmoid", self.conv(squeezed, self.channels[x], 1)))

    def block_of_one(self, x: str, filters: int) -> str:
        return self.relu(self.conv(x, filters, 1))

    def attention(
        self, x: str, values: int, kernel: tuple[int, int], *, channels: int, **attributes: Any
    ) -> str:
        """Every pixel attends to the window around it; `channels` of queries and keys."""
        inputs = [self.conv(x, count, 1) for count in (channels, channels, values)]
        embeddings = self.constant(self.rng.standard_normal((channels, *kernel)) * 0.5)
        return self.add(
            "LocalAttention2d",
            *inputs,
            embeddings,
            channels=values,
            domain="qcompile",
            kernel_shape=kernel,
            **attributes,
        )

    def model(self, *outputs: str) -> onnx.ModelProto:
        def info(name: str) -> onnx.ValueInfoProto:
            integer = name.startswith("argmax")
            element = TensorProto.INT64 if integer else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, element, None)

        graph = helper.make_graph(
            self.nodes,
            "small",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [info(name) for name in outputs],
            [numpy_helper.from_array(data, name) for name, data in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("qcompile", 1)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def residual() -> onnx.ModelProto:
    """A residual block with a projection, then one with the identity."""
    net = Net({"image": (1, 2, 12, 12)})
    x = net.block(net.conv("image", 4), 4)
    left = net.conv(net.block(x, 8), 8)
    x = net.relu(net.add("Add", left, net.conv(x, 8, 1)))
    x = net.relu(net.add("Add", net.conv(net.block(x, 8), 8), x))
    return net.model(net.conv(x, 3, 1))


def unet(up: Callable[[Net, str, int], str], size: int = 16, *, norms: bool = False) -> Net:
    """Two levels; `up` doubles height and width. The nets' last value is the scores."""
    net = Net({"image": (1, 1, size, size)})

    def block(x: str, filters: int) -> str:
        x = net.block(x, filters)
        return net.norm(x) if norms else x

    x, skips = "image", []
    for filters in (4, 8):
        x = block(block(x, filters), filters)
        skips.append(x)
        x = net.pool(x)
    x = block(x, 8)
    for filters in (8, 4):
        x = block(net.concat(up(net, x, filters), skips.pop()), filters)
    net.conv(x, 2, 1)
    return net


def transposed_unet() -> onnx.ModelProto:
    net = unet(Net.up)
    return net.model(net.nodes[-1].output[0])


def bilinear_unet() -> onnx.ModelProto:
    """Norms behind the activations, so that they stay operators of their own."""
    net = unet(lambda net, x, filters: net.resize(x, "linear"), norms=True)
    return net.model(net.nodes[-1].output[0])


def nearest_classes() -> onnx.ModelProto:
    """Nearest resize, and a class map."""
    net = Net({"image": (1, 3, 8, 12)})
    x = net.block("image", 6)
    x = net.block(net.concat(net.resize(net.block(net.pool(x), 6), "nearest"), x), 4)
    scores = net.conv(x, 5, 1)
    return net.model(net.add("ArgMax", scores, channels=1, axis=1, keepdims=1))


def gated() -> onnx.ModelProto:
    """Squeeze and excitation between two separable convolutions, with a stride."""
    net = Net({"image": (1, 4, 10, 14)})
    x = net.relu(net.conv("image", 4, groups=4))
    x = net.gate(net.block_of_one(x, 8))
    x = net.relu(net.conv(x, 8, stride=2, groups=8))
    return net.model(net.conv(net.block_of_one(x, 6), 2, 1))


def several() -> onnx.ModelProto:
    """Two inputs and three outputs, one of which is read inside as well."""
    net = Net({"first": (1, 1, 8, 8), "second": (1, 2, 8, 8)})
    both = net.block(net.concat(net.block("first", 2), "second"), 4)
    small = net.conv(net.pool(both), 3)
    return net.model(both, small, net.add("Sigmoid", net.conv(both, 1, 1)))


def attended() -> onnx.ModelProto:
    """Attention with heads instead of a convolution, and class probabilities."""
    net = Net({"image": (1, 1, 7, 9)})
    x = net.relu(net.attention(net.block("image", 4), 6, (3, 3), channels=4, heads=2))
    return net.model(net.add("Softmax", net.conv(x, 3, 1), axis=1))


def attended_by_channel() -> onnx.ModelProto:
    """Windows of 5 x 3, a softmax for each channel, padding of its own, and a way round it."""
    net = Net({"image": (1, 2, 6, 8)})
    x = net.block("image", 4)
    pads = {"mode": "per_channel", "pads": [2, 1, 2, 1], "scale": 0.5}
    y = net.norm(net.attention(x, 4, (5, 3), channels=4, **pads))
    return net.model(net.conv(net.relu(net.add("Add", x, y)), 2, 1))


def attended_unet() -> onnx.ModelProto:
    """Two levels, each with attention, in 3 x 3 and 5 x 5 windows."""
    net = Net({"image": (1, 1, 12, 16)})
    skip = net.relu(net.attention(net.block("image", 4), 4, (3, 3), channels=4))
    x = net.relu(net.attention(net.pool(skip), 8, (5, 5), channels=8, heads=4))
    return net.model(net.conv(net.concat(net.up(x, 4), skip), 3, 1))


ATTENTION: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "attended": attended,
    "attended_by_channel": attended_by_channel,
    "attended_unet": attended_unet,
}
MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "residual": residual,
    "transposed_unet": transposed_unet,
    "bilinear_unet": bilinear_unet,
    "nearest_classes": nearest_classes,
    "gated": gated,
    "several": several,
}


def compiled(model: onnx.ModelProto | Path, folder: Path, **options: Any) -> Graph:
    """The integer graph of a model; options as in `CompileOptions`."""
    if isinstance(model, Path):
        path = model
    else:
        path = folder / "model.onnx"
        onnx.save(model, str(path))
    return compile_model(path, CompileOptions(target=Target.SIM, **options)).integer_graph


def feeds(graph: Graph, count: int = 2) -> list[Feed]:
    return random_feeds(graph, 3, count)
