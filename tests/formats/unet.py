"""A small fixed-point U-Net as published: conv -> ReLU -> BN, pool, bilinear resize, concat.

Twice: as an ONNX model, and as a float64 fake-quantized graph in numpy that shares no code with the
compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array

Quantize = Callable[[Array], Array]


@dataclass(frozen=True)
class Layer:
    """One block: 3x3 convolution, ReLU and batch norm (the last layer has neither)."""

    weights: Array
    bias: Array
    norm: tuple[Array, Array, Array, Array] | None
    epsilon: float


@dataclass(frozen=True)
class UNet:
    """Blocks a, b | pool | c, d | pool | e | up + d, f | up + b, g | last."""

    layers: dict[str, Layer]
    size: int

    @staticmethod
    def random(seed: int, exact_norms: bool, size: int = 8, channels: int = 4) -> UNet:
        """Args:
        exact_norms: gain and shift are short binary fractions, so that float64 has no rounding
            and values exactly on a level's border occur.
        """
        rng = np.random.default_rng(seed)
        n = channels
        shapes = {"a": (1, n), "b": (n, n), "c": (n, n), "d": (n, n), "e": (n, n)}
        shapes |= {"f": (2 * n, n), "g": (2 * n, n), "last": (n, 1)}
        layers = {}
        for name, (inputs, outputs) in shapes.items():
            weights = rng.uniform(-1.3, 1.3, (outputs, inputs, 3, 3)).astype(np.float32)
            bias = rng.uniform(-2, 2, outputs)
            if exact_norms:
                bias = np.round(bias * 4) / 4
            norm = None if name == "last" else _norm(rng, outputs, exact_norms)
            layers[name] = Layer(
                weights, bias.astype(np.float32), norm, 0.0 if exact_norms else 1e-5
            )
        return UNet(layers, size)

    # The model ------------------------------------------------------------------------------

    def save(self, path: Path) -> Path:
        nodes: list[onnx.NodeProto] = []
        constants: dict[str, Array] = {"scales": np.array([1, 1, 2, 2], np.float32)}

        def block(name: str, x: str) -> str:
            layer = self.layers[name]
            constants[f"{name}.w"], constants[f"{name}.b"] = layer.weights, layer.bias
            conv = [x, f"{name}.w", f"{name}.b"]
            y = "y" if layer.norm is None else f"{name}.sum"
            nodes.append(helper.make_node("Conv", conv, [y], f"c_{name}", pads=[1, 1, 1, 1]))
            if layer.norm is None:
                return y
            nodes.append(helper.make_node("Relu", [y], [f"{name}.relu"], f"relu_{name}"))
            parameters = [f"{name}.norm{index}" for index in range(4)]
            constants.update(zip(parameters, layer.norm, strict=True))
            bn = [f"{name}.relu", *parameters]
            out = [f"{name}.out"]
            nodes.append(
                helper.make_node("BatchNormalization", bn, out, f"bn_{name}", epsilon=layer.epsilon)
            )
            return out[0]

        def pool(x: str) -> str:
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [x], [f"{x}.pool"], f"pool_{x}", **window))
            return f"{x}.pool"

        def up(x: str, skip: str) -> str:
            half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            inputs = [x, "", "scales"]
            nodes.append(helper.make_node("Resize", inputs, [f"{x}.up"], f"up_{x}", **half))
            joined = f"{x}.cat"
            nodes.append(
                helper.make_node("Concat", [f"{x}.up", skip], [joined], f"cat_{x}", axis=1)
            )
            return joined

        b = block("b", block("a", "x"))
        d = block("d", block("c", pool(b)))
        f = block("f", up(block("e", pool(d)), d))
        block("last", block("g", up(f, b)))
        graph = helper.make_graph(
            nodes,
            "unet",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, self.size, self.size))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(data, name) for name, data in constants.items()],
        )
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
        return path

    # The oracle -----------------------------------------------------------------------------

    def reference(self, image: Array, weights: Quantize, activations: Quantize) -> dict[str, Array]:
        """Every block's output in float64 for an image [H, W] of real numbers."""
        values: dict[str, Array] = {}

        def block(name: str, x: Array) -> Array:
            layer = self.layers[name]
            y = _conv(x, weights(layer.weights.astype(np.float64)))
            y += layer.bias.astype(np.float64)[:, None, None]
            if layer.norm is not None:
                y = np.maximum(y, 0.0)
                gain, shift = _gain_and_shift(layer)
                y = y * gain[:, None, None] + shift[:, None, None]
            values[name] = activations(y)
            return values[name]

        b = block("b", block("a", image[None].astype(np.float64)))
        d = block("d", block("c", _pool(b)))
        e = block("e", _pool(d))
        f = block("f", np.concatenate([_up(_up(e, 1), 2), d]))
        block("last", block("g", np.concatenate([_up(_up(f, 1), 2), b])))
        return values


def _norm(
    rng: np.random.Generator, channels: int, exact: bool
) -> tuple[Array, Array, Array, Array]:
    gain = rng.uniform(0.2, 1.5, channels) * rng.choice([1, 1, 1, -1], channels)
    shift = rng.uniform(-3, 3, channels)
    mean = rng.uniform(0, 2, channels)
    variance = rng.uniform(0.5, 4, channels)
    if exact:
        gain, shift, mean = (np.round(v * 8) / 8 for v in (gain, shift, mean))
        variance = rng.choice([0.25, 1.0, 4.0], channels)
    return tuple(v.astype(np.float32) for v in (gain, shift, mean, variance))  # type: ignore[return-value]


def _gain_and_shift(layer: Layer) -> tuple[Array, Array]:
    """A norm is one float32 gain and one float32 shift a channel (docs/formats.md)."""
    assert layer.norm is not None
    gain, shift, mean, variance = (v.astype(np.float64) for v in layer.norm)
    factor = gain / np.sqrt(variance + np.float64(np.float32(layer.epsilon)))
    offset = shift - mean * factor
    return factor.astype(np.float32).astype(np.float64), offset.astype(np.float32).astype(
        np.float64
    )


def _conv(x: Array, weights: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1:]
    y = np.zeros((weights.shape[0], height, width))
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + height, column : column + width]
            y += np.tensordot(weights[:, :, row, column], window, axes=1)
    return y


def _pool(x: Array) -> Array:
    channels, height, width = x.shape
    return x.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))


def _up(x: Array, axis: int) -> Array:
    """Twice as long, half-pixel bilinear."""
    before = np.concatenate([x.take([0], axis), x.take(range(x.shape[axis] - 1), axis)], axis)
    after = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
    pairs = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    return pairs.reshape(shape)
