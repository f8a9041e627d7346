from __future__ import annotations

from typing import Any

import pytest

from qcompile.ops import (
    RELU,
    Add,
    ArgMax,
    Concat,
    Mul,
    Op,
    Pad,
    ReduceMean,
    Rescale,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Transpose,
)
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.move_transposes import MoveTransposes
from tests.passes.nets import Net, assert_same_function, kinds

MOVE = MoveTransposes()
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def last(net: Net, name: str, x: str) -> str:
    return net.add(name, Transpose, x, permutation=LAST)


def first(net: Net, name: str, x: str) -> str:
    return net.add(name, Transpose, x, permutation=FIRST)


SAME_SHAPE: list[tuple[type[Op], dict[str, Any]]] = [
    (Sigmoid, {}),
    (Rescale, {"activation": RELU}),
    (Softmax, {"axis": 3}),
    (Pad, {"begins": (0, 1, 2, 0), "ends": (0, 0, 1, 3)}),
    (Slice, {"starts": (0, 1, 5, 0), "sizes": (1, 2, 4, 2), "steps": (1, 1, -1, 2)}),
    (ReduceMean, {"axes": (1, 2)}),
    (ReduceMean, {"axes": (3,)}),
]


@pytest.mark.parametrize(("kind", "fields"), SAME_SHAPE)
def test_cancel_around_one_operator(kind: type[Op], fields: dict[str, Any]) -> None:
    net = Net(x=(1, 2, 4, 6))
    y = last(net, "t1", net.conv("c1", "x", 4))
    y = first(net, "t2", net.add("op", kind, y, **fields))
    before = net.graph(net.conv("c2", y, 3))
    after = MOVE.run(before)
    assert kinds(after) == ["Conv", kind.__name__, "Conv"]
    assert_same_function(before, after)


def test_class_map_keeps_its_order() -> None:
    net = Net(x=(1, 2, 4, 6))
    y = last(net, "t1", net.conv("c1", "x", 4))
    before = net.graph(net.add("classes", ArgMax, y, axis=3))
    after = MOVE.run(before)
    assert kinds(after) == ["Conv", "ArgMax", "Transpose"]
    assert after.ops[1].infer_shape([(1, 4, 4, 6)]) == (1, 1, 4, 6)
    assert_same_function(before, after)


def test_a_channels_last_network() -> None:
    """What tf2onnx writes: every convolution between two transposes, bias and gate outside."""
    net = Net(x=(1, 8, 10, 3))
    a = last(net, "a2", net.conv("a", first(net, "a1", "x"), 4))
    a = net.add("a.relu", Rescale, net.add("a.bias", Add, a, net.random(4)), activation=RELU)
    b = last(net, "b2", net.conv("b", first(net, "b1", a), 4))
    gate = net.add("gate", Sigmoid, net.add("mean", ReduceMean, b, axes=(1, 2)))
    b = net.add("gated", Mul, net.add("b.scale", Mul, b, net.random(1, 1, 4)), gate)
    joined = net.add("join", Concat, a, b, axis=3)
    c = last(net, "c2", net.conv("c", first(net, "c1", joined), 2))
    before = net.graph(net.add("c.bias", Add, c, net.random(2)), net.add("sum", Add, a, b))
    after = MOVE.run(before)
    assert kinds(after).count("Transpose") == 3
    assert_same_function(before, after)
    folded = FoldAffine().run(after)
    # Only the scale of b stays, since the gate reads b without it.
    assert kinds(folded).count("Affine") == 1
    assert "Mul" in kinds(folded)
    assert_same_function(before, folded)


def test_stops_at_a_reshape() -> None:
    net = Net(x=(1, 2, 4, 6))
    y = net.add("s", Sigmoid, last(net, "t", net.conv("c", "x", 4)))
    before = net.graph(net.add("flat", Reshape, y, shape=(1, 96)))
    after = MOVE.run(before)
    assert kinds(after) == ["Conv", "Sigmoid", "Transpose", "Reshape"]
    assert_same_function(before, after)


def test_mixed_orders_stay() -> None:
    net = Net(x=(1, 4, 4, 4))
    before = net.graph(net.add("sum", Add, last(net, "t", "x"), "x"))
    assert kinds(MOVE.run(before)) == ["Transpose", "Add"]


def test_three_axes() -> None:
    net = Net(x=(1, 3, 8))
    y = net.add("t1", Transpose, net.conv("c1", "x", 4), permutation=(0, 2, 1))
    y = net.add("t2", Transpose, net.add("s", Sigmoid, y), permutation=(0, 2, 1))
    before = net.graph(net.conv("c2", y, 2))
    after = MOVE.run(before)
    assert kinds(after) == ["Conv", "Sigmoid", "Conv"]
    assert_same_function(before, after)
