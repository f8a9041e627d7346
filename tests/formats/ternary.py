"""ONNX networks with ternary weights and activations, written the way exporters do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array

SPELLINGS = ("published", "sum", "shifted", "sign", "difference", "where", "masked")
"""Of the function: three soft ones, then four that are -1, 0, 1 already."""


class TernaryNet:
    """Builds a model node by node; every method returns the name of the value that it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, data: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data, np.float32), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def ternary(self, x: str, spelling: str = "published", beta: float = 8.0) -> str:
        """-1, 0, 1 by the limit 1/2, or the tanh that becomes that."""
        number = self.constant
        half, minus_half, zero = number(0.5), number(-0.5), number(0.0)
        if spelling in SPELLINGS[:3]:
            return self._soft(x, spelling, number(2 * beta), number(beta), half)
        if spelling == "sign":
            size = self.add("Greater", self.add("Abs", x), half)
            return self.add("Mul", self.add("Sign", x), self._float(size))
        above, below = self.add("Greater", x, half), self.add("Less", x, minus_half)
        if spelling == "difference":
            return self.add("Sub", self._float(above), self._float(below))
        if spelling == "where":
            inner = self.add("Where", below, number(-1.0), zero)
            return self.add("Where", above, number(1.0), inner)
        either = self.add("Or", above, below)
        return self.add("Where", either, self.add("Sign", x), zero)

    def _soft(self, x: str, spelling: str, double: str, beta: str, half: str) -> str:
        if spelling == "published":
            steep = self.add("Sub", self.add("Mul", double, x), beta)
            falling = self.add("Sub", self.add("Mul", self.add("Neg", x), double), beta)
            total = self.add("Sub", self.add("Tanh", steep), self.add("Tanh", falling))
            return self.add("Mul", half, total)
        if spelling == "sum":
            steep = self.add("Mul", x, double)
            parts = (self.add(kind, steep, beta) for kind in ("Sub", "Add"))
            total = self.add("Add", *(self.add("Tanh", part) for part in parts))
            return self.add("Div", total, self.constant(2.0))
        parts = (self.add("Mul", double, self.add(kind, x, half)) for kind in ("Sub", "Add"))
        return self.add("Add", *(self.add("Mul", half, self.add("Tanh", part)) for part in parts))

    def _float(self, condition: str) -> str:
        return self.add("Cast", condition, to=TensorProto.FLOAT)

    def weights(self, *shape: int) -> Array:
        """As the paper makes them: 0 or the filter's own magnitude, by 0.7 of its mean."""
        data = self.rng.normal(size=shape)
        axes = tuple(range(1, len(shape)))
        far = np.abs(data) > 0.7 * np.abs(data).mean(axis=axes, keepdims=True)
        count = np.maximum(far.sum(axis=axes, keepdims=True), 1)
        height = (np.abs(data) * far).sum(axis=axes, keepdims=True) / count
        return np.asarray(np.sign(data) * far * height, np.float32)

    def conv(self, x: str, weights: Array, *bias: Array, pad: int = 0) -> str:
        extra = [self.constant(item) for item in bias]
        pads = [pad] * (2 * (weights.ndim - 2))
        return self.add("Conv", x, self.constant(weights), *extra, pads=pads)

    def norm(self, x: str, gain: Array, shift: Array) -> str:
        """A norm of mean 0 and variance 1: gain * x + shift, to the last bit."""
        ones = np.ones(len(gain), np.float32)
        parameters = (self.constant(item) for item in (gain, shift, 0 * ones, ones))
        return self.add("BatchNormalization", x, *parameters, epsilon=0.0)

    def layer(self, x: str, inputs: int, outputs: int, spelling: str, size: int = 3) -> str:
        """Convolution with ternary weights, norm, ternary activation."""
        weights = self.weights(outputs, inputs, size, size)
        reach = 1 / np.sqrt((weights**2).sum(axis=(1, 2, 3)))
        gain = self.rng.choice([-1, 1], outputs) * self.rng.uniform(0.5, 1.5, outputs) * reach
        shift = self.rng.normal(scale=0.3, size=outputs)
        norm = self.norm(self.conv(x, weights, pad=size // 2), gain, shift)
        return self.ternary(norm, spelling)

    def save(self, path: Path, y: str, **inputs: tuple[int, ...]) -> Path:
        """The model with the output `y`."""
        nodes = list(self.nodes)
        nodes.append(helper.make_node("Identity", [y], ["y"], name="result"))
        graph = helper.make_graph(
            nodes,
            "ternary",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in inputs.items()
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        return path


def unet(
    folder: Path, size: int = 16, base: int = 4, spellings: tuple[str, ...] = SPELLINGS
) -> Path:
    """Two levels: average pooling, bilinear resizing by 2, concatenation; plain ends."""
    net = TernaryNet(3)
    kinds = [spellings[index % len(spellings)] for index in range(6)]
    plain = net.rng.normal(size=(base, 1, 3, 3))
    first = net.ternary(net.conv("x", plain, net.rng.normal(size=base), pad=1), kinds[0])
    skip = net.layer(first, base, base, kinds[1])
    pooled = net.add("AveragePool", skip, kernel_shape=[2, 2], strides=[2, 2])
    deep = net.layer(pooled, base, 2 * base, kinds[2])
    deep = net.layer(deep, 2 * base, 2 * base, kinds[3])
    sizes = net.constant([1, 1, 2, 2])
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    up = net.add("Resize", deep, "", sizes, **mode)
    joined = net.layer(net.add("Concat", up, skip, axis=1), 3 * base, base, kinds[4])
    last = net.add("Relu", net.conv(joined, net.weights(base, base, 3, 3), pad=1))
    logits = net.conv(last, net.rng.normal(size=(2, base, 1, 1)))
    return net.save(folder / "unet.onnx", logits, x=(1, 1, size, size))
