"""Layers with attention for random networks; beside those of random_layers.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.random_layers import BENIGN_LAYERS, LAYERS, Layer
from tests.random_networks import Network, TooLarge


def attention(net: Network, x: str) -> None:
    """Multi-head attention over all pixels, over rows, or over the pixels and a class token."""
    rng, shape = net.rng, net.shapes[x]
    channels, sizes = shape[1], shape[2:]
    if net.last:
        raise TooLarge
    rows = rng.choice((1, 1, sizes[0]))
    tokens = math.prod(sizes) // rows
    heads, width = rng.choice((1, 1, 2, 3)), rng.randint(1, 4)
    flat = net.add("Reshape", [x, net.constant([1, channels, rows, tokens], "int64")])
    t = net.add("Transpose", [flat], perm=[0, 2, 3, 1])
    if rows == 1 and net.chance(0.3):
        token = net.constant(net.vector(channels, 1.0).reshape(1, 1, 1, channels))
        t = net.add("Concat", [token, t], axis=2)
        tokens += 1
    t = net.add("Reshape", [t, net.constant([rows, tokens, channels], "int64")])
    inner = heads * width

    def part(order: list[int]) -> str:
        data = net.weights(inner, channels).T
        made = net.add("MatMul", [t, net.constant(data)])
        if net.chance(0.5):
            made = net.add("Add", [made, net.constant(net.vector(inner))])
        split = net.constant([rows, tokens, heads, width], "int64")
        return net.add("Transpose", [net.add("Reshape", [made, split])], perm=order)

    q, k, v = part([0, 2, 1, 3]), part([0, 2, 3, 1]), part([0, 2, 1, 3])
    scores = net.add("MatMul", [q, k])
    if net.chance(0.6):
        scores = net.add("Mul", [scores, net.constant(rng.choice((0.5, 1.0, 3.0)))])
    if tokens > 1 and net.chance(0.3):
        mask = np.where(net.numbers.random((tokens, tokens)) < 0.3, -1e4, 0.0)
        np.fill_diagonal(mask, 0.0)
        scores = net.add("Add", [scores, net.constant(mask)])
    summed = net.add("MatMul", [net.add("Softmax", [scores], axis=-1), v])
    joined = net.add("Transpose", [summed], perm=[0, 2, 1, 3])
    out = net.add("Reshape", [joined, net.constant([rows, tokens, inner], "int64")])
    if inner == channels and net.chance(0.7):
        out = net.add("Add", [out, t])
    if tokens * rows > math.prod(sizes):
        ends = (net.constant([value], "int64") for value in (1, tokens, 1))
        out = net.add("Slice", [out, *ends])
    out = net.add("Transpose", [out], perm=[2, 0, 1])
    net.add("Reshape", [out, net.constant([1, inner, *sizes], "int64")])


def layer_norm(net: Network, x: str) -> None:
    """As one node, or as torch exported it before there was one."""
    rng, shape = net.rng, net.shapes[x]
    size = shape[-1]
    if size < (4 if net.benign else 2):
        raise TooLarge  # what is left of a single element is rounding noise
    gain, shift = net.constant(net.gains(size)), net.constant(net.vector(size))
    epsilon = rng.choice((1e-5, 1e-3))
    if net.opset >= 17 and net.chance(0.6):
        net.add("LayerNormalization", [x, gain, shift], axis=-1, epsilon=epsilon)
        return

    def mean(value: str) -> str:
        if net.opset >= 18:
            return net.add("ReduceMean", [value, net.constant([-1], "int64")], keepdims=1)
        return net.add("ReduceMean", [value], axes=[-1], keepdims=1)

    centred = net.add("Sub", [x, mean(x)])
    variance = mean(net.add("Pow", [centred, net.constant(2.0)]))
    root = net.add("Sqrt", [net.add("Add", [variance, net.constant(epsilon)])])
    scaled = net.add("Mul", [net.add("Div", [centred, root]), gain])
    net.add("Add", [scaled, shift])


def gelu(net: Network, x: str) -> None:
    """As one node, or with Erf."""
    if net.opset >= 20 and net.chance(0.5):
        net.add("Gelu", [x], approximate=net.rng.choice(("none", "tanh")))
        return
    inner = net.add("Div", [x, net.constant(math.sqrt(2))])
    raised = net.add("Add", [net.add("Erf", [inner]), net.constant(1.0)])
    net.add("Mul", [net.add("Mul", [x, raised]), net.constant(0.5)])


def local_attention(net: Network, x: str) -> None:
    """The node of the domain `qcompile`, which onnxruntime does not know."""
    rng, shape = net.rng, net.shapes[x]
    if len(shape) != 4 or net.last:
        raise TooLarge
    heads, depth = rng.choice((1, 2, 3)), rng.randint(1, 3)
    channels = heads * depth
    values = channels if net.chance(0.5) else heads * rng.randint(1, 3)
    mode: dict[str, Any] = {"heads": heads, "mode": "dot"}
    if values == channels and net.chance(0.4):
        mode = {"mode": "per_channel"}
    kernel = [rng.choice((1, 3)), rng.choice((1, 3))]
    parts = []
    for count in (channels, channels, values):
        weights = net.constant(net.weights(count, shape[1], 1, 1))
        parts.append(net.add("Conv", [x, weights]))
        net.shapes[parts[-1]] = (1, count, *shape[2:])
    relative = net.constant(net.vector(channels * math.prod(kernel), 0.5))
    net.constants[relative] = net.constants[relative].reshape(channels, *kernel)
    y = net.add("LocalAttention2d", [*parts, relative], kernel_shape=kernel, **mode)
    net.nodes[-1].domain = "qcompile"
    net.shapes[y] = (1, values, *shape[2:])


EVERYWHERE: tuple[Layer, ...] = (attention, attention, attention, layer_norm, gelu)
"""Those that onnxruntime runs."""
ATTENTION_LAYERS: tuple[Layer, ...] = (
    *EVERYWHERE * 4,
    *(local_attention,) * 6,
    *LAYERS[::3],
)
BENIGN_ATTENTION_LAYERS: tuple[Layer, ...] = (*EVERYWHERE * 3, *BENIGN_LAYERS[::3])
