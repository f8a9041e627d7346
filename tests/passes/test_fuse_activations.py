from __future__ import annotations

import pytest

from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    GroupNorm,
    MatMul,
    MaxPool,
    Rescale,
    SumOp,
)
from qcompile.passes.fuse_activations import FuseActivations
from tests.passes.nets import Net, assert_same_function, kinds

FUSE = FuseActivations()


@pytest.mark.parametrize(
    "function",
    [
        RELU,
        Activation(slope=(0.1,)),
        Activation(slope=(0.1, 0.2, 0.0, -0.5)),
        Activation(low=0.0, high=6.0),
        Activation(low=-1.0, high=1.0),
    ],
)
def test_conv_takes_its_activation(function: Activation) -> None:
    net = Net(x=(1, 3, 6, 6))
    before = net.graph(net.add("act", Rescale, net.conv("conv", "x", 4), activation=function))
    after = FUSE.run(before)
    assert kinds(after) == ["Conv"]
    assert after.ops[0].output == "act"
    assert_same_function(before, after)


def test_batch_norm_behind_relu() -> None:
    net = Net(x=(1, 3, 6, 6))
    relu = net.add("relu", Rescale, net.conv("conv", "x", 4), activation=RELU)
    bn = net.add("bn", Affine, relu, net.random(4), net.random(4))
    before = net.graph(bn, net.add("again", Rescale, bn, activation=RELU))
    after = FUSE.run(before)
    # The norm is an output of the graph, so the second ReLU has to stay.
    assert kinds(after) == ["Conv", "Rescale"]
    assert_same_function(before, after)
    before = net.graph("again")
    after = FUSE.run(before)
    assert kinds(after) == ["Conv"]
    assert_same_function(before, after)


def test_batch_norm_behind_relu6_stays() -> None:
    net = Net(x=(1, 3, 6, 6))
    function = Activation(low=0.0, high=6.0)
    clip = net.add("clip", Rescale, net.conv("conv", "x", 4), activation=function)
    before = net.graph(net.add("bn", Affine, clip, net.random(4), net.random(4)))
    after = FUSE.run(before)
    assert kinds(after) == ["Conv", "Affine"]
    assert_same_function(before, after)


def test_add_and_norm() -> None:
    net = Net(x=(1, 4, 6, 6))
    norm = net.add("n", GroupNorm, "x", net.random(4), net.random(4), groups=4, epsilon=1e-5)
    leaky = net.add("leaky", Rescale, norm, activation=Activation(slope=(0.01,)))
    total = net.add("sum", Add, leaky, net.conv("conv", "x", 4))
    before = net.graph(net.add("relu", Rescale, total, activation=RELU))
    after = FUSE.run(before)
    assert kinds(after) == ["GroupNorm", "Conv", "Add"]
    assert_same_function(before, after)


def test_movement_keeps_its_activation() -> None:
    net = Net(x=(1, 4, 6, 6))
    pool = net.add(
        "pool",
        MaxPool,
        "x",
        kernel=(2, 2),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    before = net.graph(net.add("relu", Rescale, pool, activation=RELU))
    assert kinds(FUSE.run(before)) == ["MaxPool", "Rescale"]


def test_channel_axes_must_agree() -> None:
    net = Net(x=(1, 4, 5))
    product = net.add("fc", MatMul, "x", net.random(5, 4))
    function = Activation(slope=(0.1, 0.2, 0.3, 0.4))
    before = net.graph(net.add("prelu", Rescale, product, activation=function))
    after = FUSE.run(before)
    assert kinds(after) == ["MatMul", "Rescale"]
    before = net.graph(net.add("relu", Rescale, product, activation=RELU))
    after = FUSE.run(before)
    assert kinds(after) == ["MatMul"]
    (op,) = after.ops
    assert isinstance(op, SumOp)
    assert_same_function(before, after)
