"""Networks with everything that ties channels together."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from qcompile.graph import Graph
from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    GroupNorm,
    LinearResize,
    LinearTaps,
    LocalAttention2d,
    MatMul,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    ReduceMean,
    Rescale,
    Reshape,
    Sigmoid,
    Slice,
)
from tests.passes.nets import Net


def window(size: int) -> dict[str, tuple[int, ...]]:
    return {
        "kernel": (size, size),
        "strides": (size, size),
        "pads_begin": (0, 0),
        "pads_end": (0, 0),
        "dilations": (1, 1),
    }


def u_net(seed: int = 0) -> Graph:
    """Encoder, pool, up-convolution, skip through Concat, residual, pads, resizes, norms."""
    net = Net(seed, x=(1, 3, 8, 8))
    relu: dict[str, Any] = {
        "activation": Activation(slope=(0.0,), gain=tuple(range(1, 7)), shift=(0.5,))
    }
    a = net.conv("a", "x", 6, **relu)
    down = net.add("down", MaxPool, a, **window(2))
    b = net.conv("b", down, 8, activation=RELU)
    c = net.conv("c", b, 8)
    b = net.add("res", Add, c, b, activation=RELU)
    b = net.add("norm", GroupNorm, b, net.random(8), net.random(8), groups=4, epsilon=1e-2)
    b = net.add("affine", Affine, b, net.random(8), net.random(8))
    up = net.up("up", b, 6)
    up = net.add("prelu", Rescale, up, activation=Activation(slope=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    other = net.add("near", NearestResize, b, sources=((0, 0, 1, 1, 2, 2, 3, 3),) * 2)
    joined = net.add("join", Concat, a, up, other, axis=1)
    d = net.conv("d", joined, 6, activation=RELU)
    d = net.add("pad", Pad, d, begins=(0, 0, 1, 1), ends=(0, 0, 1, 1))
    d = net.add("crop", Slice, d, starts=(0, 0, 1, 1), sizes=(1, 6, 8, 8), steps=(1,) * 4)
    return net.graph(net.conv("out", d, 2))


def mobile_net(seed: int = 0) -> Graph:
    """Depthwise and grouped filters, squeeze and excite gates by Flatten and MatMul, resize."""
    net = Net(seed, x=(1, 3, 8, 8))
    a = net.conv("a", "x", 8, activation=RELU)
    depthwise = net.conv("depthwise", a, 8, groups=8, activation=RELU)
    doubled = net.conv("doubled", depthwise, 16, groups=8)
    grouped = net.conv("grouped", doubled, 8, groups=4)
    mean = net.add("mean", ReduceMean, grouped, axes=(2, 3), keepdims=False)
    squeeze = net.add("squeeze", MatMul, mean, net.random(8, 4), net.random(4), activation=RELU)
    excite = net.add("excite", MatMul, squeeze, net.random(4, 8), net.random(8))
    gate = net.add("gate", Reshape, net.add("s", Sigmoid, excite), shape=(1, 8, 1, 1))
    gated = net.add("gated", Mul, grouped, gate)
    scaled = net.add("scaled", Mul, gated, net.random(8, 1, 1))
    attention = net.add("attention", Sigmoid, net.conv("one", scaled, 1, kernel=1, pad=0))
    y = net.add("attended", Mul, attention, scaled)
    y = net.add("average", AveragePool, y, **window(2))
    taps = LinearTaps((0, 1, 2), (1, 2, 3), (Fraction(1, 2), Fraction(1, 4), Fraction(3, 4)))
    y = net.add("linear", LinearResize, y, taps=(taps, taps))
    y = net.up("up", y, 6, groups=2)
    flat = net.add("flat", Reshape, net.conv("f", y, 3), shape=(1, 108))
    return net.graph(net.add("fc", MatMul, flat, net.random(108, 5)), net.conv("map", y, 2))


def valid_net(seed: int = 0) -> Graph:
    """Convolutions without padding, a skip that is cropped, a residual, and pools."""
    net = Net(seed, x=(1, 2, 14, 14))
    a = net.conv("a", "x", 6, pad=0, activation=Activation(slope=(0.0,), shift=(0.25,)))
    b = net.conv("b", a, 6, pad=0, activation=Activation(slope=(0.1,)))
    crop = net.add("crop", Slice, a, starts=(0, 0, 1, 1), sizes=(1, 6, 10, 10), steps=(1,) * 4)
    residual = net.add("residual", Add, b, crop, activation=RELU)
    small = net.add("small", AveragePool, residual, **window(2))
    deep = net.conv("deep", small, 8, kernel=1, pad=0)
    deep = net.add("wide", NearestResize, deep, sources=(tuple(p // 2 for p in range(10)),) * 2)
    joined = net.add("join", Concat, residual, deep, axis=1)
    depthwise = net.conv("depthwise", joined, 14, groups=14, pad=0, activation=RELU)
    return net.graph(net.conv("out", depthwise, 3, pad=0))


def attention_net(seed: int = 0) -> Graph:
    """Local attention of one head, of two, of one for each channel, and of one for each pair of
    values; with and without biases, a batch norm, a skip and a residual."""
    net = Net(seed, x=(1, 3, 8, 8))
    a = net.conv("a", "x", 6, activation=RELU)
    one = attend(net, "one", a, 8, 6)
    norm = (net.random(6), net.random(6))
    two = attend(net, "two", one, 8, 6, norm=norm, heads=2, activation=RELU)
    joined = net.add("join", Concat, net.add("sum", Add, one, two), a, axis=1)
    three = attend(net, "three", joined, 5, 5, heads=5, biased=True, activation=RELU)
    four = attend(net, "four", three, 4, 8, heads=4, kernel=(1, 3), score_scale=0.25)
    return net.graph(net.conv("out", four, 2))


def attend(
    net: Net,
    name: str,
    x: str,
    queries: int,
    values: int,
    *,
    kernel: tuple[int, int] = (3, 3),
    biased: bool = False,
    norm: tuple[str, ...] = (),
    **fields: Any,
) -> str:
    """Convolutions for queries, keys and values, and attention over windows."""
    inputs = []
    for side, count in (("q", queries), ("k", queries), ("v", values)):
        if biased:
            inputs.append(net.conv(f"{name}.{side}", x, count, kernel=1, pad=0))
            continue
        weights = net.random(count, net.shape(x)[1], 1, 1)
        none = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
        inputs.append(net.add(f"{name}.{side}", Conv, x, weights, **none))
    inputs.append(net.random(queries, *kernel))
    pads = tuple(size // 2 for size in kernel)
    geometry = {"kernel": kernel, "pads_begin": pads, "pads_end": pads}
    return net.add(name, LocalAttention2d, *inputs, *norm, **geometry, **fields)
