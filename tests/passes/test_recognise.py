from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Mul,
    Rescale,
    Reshape,
    Sigmoid,
)
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.recognise_group_norm import RecogniseGroupNorm
from qcompile.passes.recognise_silu import RecogniseSilu
from tests.passes.nets import Net, assert_same_function, kinds


@pytest.mark.parametrize("inner", [(1, 2, 48), (1, 2, 4, 3, 4)])
def test_group_norm_as_instance_norm_of_a_reshaped_tensor(inner: tuple[int, ...]) -> None:
    net = Net(x=(1, 8, 3, 4))
    y = net.add("a", Reshape, "x", shape=inner)
    y = net.add("n", GroupNorm, y, net.random(2), net.random(2), groups=2, epsilon=1e-5)
    y = net.add("b", Reshape, y, shape=(1, 8, 3, 4))
    y = net.add("scale", Mul, y, net.random(8, 1, 1))
    before = net.graph(net.add("shift", Add, y, net.random(8, 1, 1)))
    after = FoldAffine().run(RecogniseGroupNorm().run(before))
    assert kinds(after) == ["GroupNorm"]
    (op,) = after.ops
    assert isinstance(op, GroupNorm)
    assert op.groups == 2
    assert_same_function(before, after)


def test_norm_of_another_shape_stays() -> None:
    net = Net(x=(1, 8, 3, 4))
    y = net.add("a", Reshape, "x", shape=(1, 2, 48))
    y = net.add("n", GroupNorm, y, net.random(2), net.random(2), groups=2, epsilon=1e-5)
    before = net.graph(net.add("b", Reshape, y, shape=(1, 4, 6, 4)))
    assert kinds(RecogniseGroupNorm().run(before)) == ["Reshape", "GroupNorm", "Reshape"]


def test_silu() -> None:
    net = Net(x=(1, 3, 6, 6))
    conv = net.conv("conv", "x", 4)
    before = net.graph(net.add("mul", Mul, net.add("s", Sigmoid, conv), conv))
    after = RecogniseSilu().run(before)
    assert kinds(after) == ["Conv", "Silu"]
    assert_same_function(before, after)


def test_silu_with_an_activation_behind_it() -> None:
    net = Net(x=(1, 3, 6, 6))
    gate = net.add("s", Sigmoid, "x")
    before = net.graph(net.add("mul", Mul, "x", gate, activation=RELU))
    after = RecogniseSilu().run(before)
    assert kinds(after) == ["Silu", "Rescale"]
    assert_same_function(before, after)


def test_hard_swish_by_hard_sigmoid() -> None:
    net = Net(x=(1, 3, 6, 6))
    gate = net.add("g", HardSigmoid, "x", alpha=1 / 6, beta=0.5)
    before = net.graph(net.add("mul", Mul, "x", gate))
    after = RecogniseSilu().run(before)
    assert kinds(after) == ["HardSwish"]
    assert_same_function(before, after)


@pytest.mark.parametrize("fuse_first", [False, True])
@pytest.mark.parametrize("sixth_last", [False, True])
def test_hard_swish_by_clip(fuse_first: bool, sixth_last: bool) -> None:
    net = Net(x=(1, 3, 6, 6))
    x = net.conv("conv", "x", 4)
    gate = net.add("add", Add, x, net.constant(np.full((1, 1, 1, 1), 3.0)))
    gate = net.add("clip", Rescale, gate, activation=Activation(low=0.0, high=6.0))
    sixth = net.constant(np.float32(1 / 6))
    if sixth_last:
        y = net.add("sixth", Mul, net.add("mul", Mul, x, gate), sixth)
    else:
        y = net.add("mul", Mul, x, net.add("sixth", Mul, sixth, gate))
    before = net.graph(y)
    after = FoldAffine().run(before)
    if fuse_first:
        after = FuseActivations().run(after)
    after = FuseActivations().run(RecogniseSilu().run(after))
    assert kinds(after)[:2] == ["Conv", "HardSwish"]
    assert kinds(after)[2:] in ([], ["Affine"], ["Rescale"])
    assert isinstance(after.ops[1], HardSwish)
    assert_same_function(before, after)


def test_other_gates_stay() -> None:
    net = Net(x=(1, 3, 6, 6))
    other = net.add("g", HardSigmoid, "x", alpha=0.2, beta=0.5)
    before = net.graph(net.add("mul", Mul, "x", other))
    assert kinds(RecogniseSilu().run(before)) == ["HardSigmoid", "Mul"]
    gate = net.add("s", Sigmoid, net.add("a", Affine, "x", net.random(3), net.random(3)))
    before = net.graph(net.add("mul2", Mul, "x", gate))
    assert kinds(RecogniseSilu().run(before)) == ["Affine", "Sigmoid", "Mul"]
