"""Builds U-Nets with random weights as ONNX models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "image", "logits"


@dataclass
class UNet:
    """A U-Net: conv, batch norm, activation twice a level, 2x2 pooling, ConvTranspose 2x2 up.

    Attributes:
        base: channels of the first level; each level has twice as many as the one above.
        depth: poolings.
        size: height and width of the image, in pixels.
        ternary_share: None for Gaussian weights and ReLU. Else weights are -a, 0 or a, this share
            of them not 0, and the activation is a clip to -1..1: a network that ternary weights
            and activations represent.
        seed: of the weights.
    """

    base: int
    depth: int = 4
    size: int = 256
    ternary_share: float | None = None
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list, init=False)
    constants: list[onnx.TensorProto] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def build(self) -> onnx.ModelProto:
        """The model: input `image` (1, 1, size, size) in 0..1, output `logits` of that shape."""
        widths = [self.base << level for level in range(self.depth + 1)]
        x, skips, inputs = INPUT, [], 1
        for level, width in enumerate(widths[:-1]):
            x = self._level(f"down{level}", x, inputs, width)
            skips.append(x)
            x = self._node("MaxPool", f"pool{level}", x, kernel_shape=[2, 2], strides=[2, 2])
            inputs = width
        x = self._level("bottom", x, inputs, widths[-1])
        for level, skip in reversed(list(enumerate(skips))):
            width = widths[level]
            # Each output pixel of a ConvTranspose 2x2 with stride 2 sees one input pixel.
            w = self._weights(f"up{level}.w", (2 * width, width, 2, 2), terms=2 * width)
            x = self._node("ConvTranspose", f"up{level}", x, w, strides=[2, 2])
            if self.ternary_share is not None:
                x = self._activation(f"up{level}.act", x)
            x = self._node("Concat", f"concat{level}", skip, x, axis=1)
            x = self._level(f"merge{level}", x, 2 * width, width)
        w = self._weights("head.w", (1, self.base, 1, 1), terms=self.base)
        self._node("Conv", OUTPUT, x, w)
        shape = [1, 1, self.size, self.size]
        graph = helper.make_graph(
            self.nodes,
            "unet",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model

    def _level(self, name: str, x: str, inputs: int, outputs: int) -> str:
        for index, channels in enumerate((inputs, outputs)):
            w = self._weights(f"{name}.w{index}", (outputs, channels, 3, 3), terms=9 * channels)
            x = self._node("Conv", f"{name}.conv{index}", x, w, pads=[1] * 4)
            x = self._node("BatchNormalization", f"{name}.norm{index}", x, *self._norm(x, outputs))
            x = self._activation(f"{name}.act{index}", x)
        return x

    def _activation(self, name: str, x: str) -> str:
        if self.ternary_share is None:
            return self._node("Relu", name, x)
        ends = [
            self._constant(f"{name}.{end}", np.array(value, np.float32))
            for end, value in (("low", -1), ("high", 1))
        ]
        return self._node("Clip", name, x, *ends)

    def _norm(self, name: str, channels: int) -> list[str]:
        ranges = {"gain": (0.8, 1.2), "shift": (-0.2, 0.2), "mean": (-0.1, 0.1), "var": (0.8, 1.2)}
        return [
            self._constant(
                f"{name}.{part}", self.random.uniform(low, high, channels).astype(np.float32)
            )
            for part, (low, high) in ranges.items()
        ]

    def _weights(self, name: str, shape: tuple[int, ...], terms: int) -> str:
        """Weights whose sums have about the variance of the inputs."""
        share = self.ternary_share
        if share is None:
            return self._constant(name, self.random.normal(0, np.sqrt(2 / terms), shape))
        signs = self.random.choice([-1.0, 0.0, 1.0], shape, p=[share / 2, 1 - share, share / 2])
        return self._constant(name, signs * np.sqrt(1.5 / (share * terms)))

    def _constant(self, name: str, data: NDArray[np.floating]) -> str:
        self.constants.append(numpy_helper.from_array(data.astype(np.float32), name))
        return name

    def _node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name
