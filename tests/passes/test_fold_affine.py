from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import (
    RELU,
    Add,
    Affine,
    Conv,
    ConvTranspose,
    GroupNorm,
    MatMul,
    MaxPool,
    Mul,
    Rescale,
)
from qcompile.passes.fold_affine import FoldAffine, channel_vector
from tests.passes.nets import Net, assert_same_function, kinds

FOLD = FoldAffine()


def affine(net: Net, name: str, x: str, shift: bool = True) -> str:
    channels = net.shape(x)[1]
    offset = net.random(channels) if shift else net.constant(np.zeros(channels))
    return net.add(name, Affine, x, net.random(channels), offset)


def test_conv_takes_a_batch_norm_and_its_activation() -> None:
    net = Net(x=(1, 3, 6, 6))
    conv = net.conv("conv", "x", 4)
    scale, shift = net.random(4), net.random(4)
    before = net.graph(net.add("bn", Affine, conv, scale, shift, activation=RELU))
    after = FOLD.run(before)
    assert kinds(after) == ["Conv"]
    (op,) = after.ops
    assert isinstance(op, Conv)
    assert (op.name, op.output, op.activation) == ("conv", "bn", RELU)
    assert_same_function(before, after)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_conv_by_groups(groups: int) -> None:
    net = Net(x=(1, 4, 5, 5))
    before = net.graph(affine(net, "bn", net.up("up", "x", 6, groups=groups)))
    after = FOLD.run(before)
    assert [type(op) for op in after.ops] == [ConvTranspose]
    assert_same_function(before, after)


def test_matmul() -> None:
    net = Net(x=(1, 5))
    product = net.add("fc", MatMul, "x", net.random(5, 7))
    before = net.graph(affine(net, "bn", product))
    after = FOLD.run(before)
    assert kinds(after) == ["MatMul"]
    assert_same_function(before, after)


def test_chain_of_affines_mul_and_add_constants() -> None:
    net = Net(x=(1, 4, 3, 3))
    y = net.add("mul", Mul, net.random(4, 1, 1), "x")
    y = net.add("add", Add, y, net.constant(3.0))
    y = net.add("sub", Add, net.random(1, 4, 1, 1), y, weights=(1, -1))
    before = net.graph(affine(net, "bn", y))
    after = FOLD.run(before)
    assert kinds(after) == ["Affine"]
    assert_same_function(before, after)


def test_group_norm_takes_its_scale() -> None:
    net = Net(x=(1, 4, 5, 5))
    norm = net.add("n", GroupNorm, "x", net.random(4), net.random(4), groups=2, epsilon=1e-5)
    before = net.graph(affine(net, "bn", norm))
    after = FOLD.run(before)
    assert kinds(after) == ["GroupNorm"]
    assert_same_function(before, after)


@pytest.mark.parametrize(
    ("pad", "shift", "groups", "folds"),
    [
        (0, True, 1, True),
        (0, True, 2, True),
        (1, False, 2, True),
        (1, False, 1, True),
        (1, True, 1, False),
    ],
)
def test_forwards_only_where_exact(pad: int, shift: bool, groups: int, folds: bool) -> None:
    net = Net(x=(1, 4, 6, 6))
    pool = net.add("pool", MaxPool, "x", **window(2))
    y = net.conv("conv", affine(net, "bn", pool, shift), 4, pad=pad, groups=groups)
    before = net.graph(y)
    after = FOLD.run(before)
    assert kinds(after) == (["MaxPool", "Conv"] if folds else ["MaxPool", "Affine", "Conv"])
    assert_same_function(before, after)


def window(size: int) -> dict[str, tuple[int, ...]]:
    return {
        "kernel": (size, size),
        "strides": (1, 1),
        "pads_begin": (0, 0),
        "pads_end": (0, 0),
        "dilations": (1, 1),
    }


@pytest.mark.parametrize("groups", [1, 2])
def test_scale_forwards_into_a_transposed_conv(groups: int) -> None:
    net = Net(x=(1, 4, 4, 4))
    before = net.graph(net.up("up", affine(net, "bn", "x", shift=False), 6, groups=groups))
    after = FOLD.run(before)
    assert kinds(after) == ["ConvTranspose"]
    assert_same_function(before, after)


def test_forwards_into_a_matmul() -> None:
    net = Net(x=(1, 5))
    y = net.add("fc", MatMul, affine(net, "bn", "x"), net.random(5, 3), net.random(3))
    before = net.graph(y)
    after = FOLD.run(before)
    assert kinds(after) == ["MatMul"]
    assert_same_function(before, after)


def test_what_others_read_stays() -> None:
    net = Net(x=(1, 3, 6, 6))
    conv = net.conv("conv", "x", 4)
    bn = affine(net, "bn", conv)
    before = net.graph(net.add("sum", Add, conv, bn))
    after = FOLD.run(before)
    assert kinds(after) == ["Conv", "Affine", "Add"]
    before = net.graph(conv, bn)
    assert kinds(FOLD.run(before)) == ["Conv", "Affine"]


def test_an_activation_in_between_stays() -> None:
    net = Net(x=(1, 3, 6, 6))
    relu = net.add("relu", Rescale, net.conv("conv", "x", 4), activation=RELU)
    before = net.graph(affine(net, "bn", relu))
    assert kinds(FOLD.run(before)) == ["Conv", "Rescale", "Affine"]


def test_constants_along_other_axes_are_no_affine() -> None:
    assert channel_vector(np.ones((5, 1)), (1, 3, 5, 6)) is None
    assert channel_vector(np.ones((3, 1, 1)), (1, 3, 5, 6)) is not None
    assert channel_vector(np.ones(3), (1, 3)) is not None
    assert channel_vector(np.ones(6), (1, 3, 5, 6)) is None
    assert channel_vector(np.ones(1), (3,)) is None
    assert channel_vector(np.ones((1, 4, 1, 1)), (1, 1, 5, 6)) is None
