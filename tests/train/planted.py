"""A network in which some filters do nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.graph import Graph
from qcompile.ops import Activation, Add, Concat, Conv
from tests.passes.nets import Net

RELU = Activation(slope=(0.0,))
WINDOW = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
SAME = {"pads_begin": (1, 1), "pads_end": (1, 1)}


def weighted(net: Net, name: str, x: str, weights: Any, **fields: Any) -> str:
    """A convolution without bias."""
    return net.add(name, Conv, x, net.constant(weights), **(WINDOW | fields))


def planted() -> tuple[Graph, set[tuple[str, int]]]:
    """A small network with a skip and a residual, and the filters (operator, index) in it that do
    nothing: for lack of weights, of readers, or behind a ReLU that is never above zero."""
    net = Net(3, x=(1, 1, 8, 8))
    uniform = net.rng.uniform
    first = uniform(-1, 1, (6, 1, 3, 3))
    first[2] = 0
    weighted(net, "first", "x", first, activation=RELU, **SAME)
    second = uniform(-1, 1, (6, 6, 3, 3))
    second[4] = -np.abs(second[4])
    weighted(net, "second", "first", second, activation=RELU, **SAME)
    third, tied = uniform(-1, 1, (6, 6, 3, 3)), uniform(-1, 1, (6, 6, 1, 1))
    third[:, 1] = tied[:, 1] = tied[5] = 0
    weighted(net, "third", "second", third, **SAME)
    weighted(net, "tied", "second", tied)
    net.add("sum", Add, "third", "tied")
    last = uniform(-1, 1, (2, 12, 1, 1))
    last[:, [0, 9]] = 0
    net.add("skip", Concat, "sum", "first", axis=1)
    weighted(net, "last", "skip", last)
    # Filter 5 of 'tied' goes together with that of 'third', which does something.
    dead = {("first", 2), ("second", 4), ("second", 1), ("third", 0), ("tied", 0)}
    return net.graph("last"), dead
