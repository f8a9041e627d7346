from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qcompile.ops import (
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    LinearResize,
    LinearTaps,
    MaxPool,
    Mul,
    NearestResize,
    Op,
    Pad,
    PadMode,
    Rescale,
    Reshape,
    Sigmoid,
    Slice,
    Transpose,
)
from qcompile.passes.drop_no_ops import DropNoOps
from tests.passes.nets import Net, assert_same_function, kinds

DROP = DropNoOps()

IDENTITIES: list[tuple[type[Op], dict[str, object]]] = [
    (Rescale, {}),
    (Reshape, {"shape": (1, 2, 3, 4)}),
    (Transpose, {"permutation": (0, 1, 2, 3)}),
    (Pad, {"begins": (0,) * 4, "ends": (0,) * 4}),
    (Pad, {"begins": (0,) * 4, "ends": (0,) * 4, "mode": PadMode.EDGE}),
    (Slice, {"starts": (0,) * 4, "sizes": (1, 2, 3, 4), "steps": (1,) * 4}),
    (NearestResize, {"sources": ((0, 1, 2), (0, 1, 2, 3))}),
    (
        LinearResize,
        {
            "taps": (
                LinearTaps((0, 1, 2), (1, 2, 2), (Fraction(0),) * 3),
                LinearTaps((0, 1, 2, 3), (1, 2, 3, 3), (Fraction(0),) * 4),
            )
        },
    ),
    (Concat, {"axis": 1}),
    (
        MaxPool,
        {
            "kernel": (1, 1),
            "strides": (1, 1),
            "pads_begin": (0, 0),
            "pads_end": (0, 0),
            "dilations": (1, 1),
        },
    ),
]


@pytest.mark.parametrize(("kind", "fields"), IDENTITIES)
def test_identities_go_inside_and_at_the_end(kind: type[Op], fields: dict[str, object]) -> None:
    net = Net(x=(1, 2, 3, 4))
    inner = net.add("inner", kind, net.add("s", Sigmoid, "x"), **fields)
    before = net.graph(net.add("end", kind, net.add("t", Sigmoid, inner), **fields))
    after = DROP.run(before)
    assert kinds(after) == ["Sigmoid", "Sigmoid"]
    assert_same_function(before, after)


def test_an_identity_between_input_and_output_stays() -> None:
    net = Net(x=(1, 2, 3, 4))
    before = net.graph(net.add("end", Rescale, "x"))
    after = DROP.run(before)
    assert kinds(after) == ["Rescale"]
    assert_same_function(before, after)


def test_two_names_of_one_output_stay() -> None:
    net = Net(x=(1, 2, 3, 4))
    sigmoid = net.add("s", Sigmoid, "x")
    before = net.graph(sigmoid, net.add("copy", Rescale, sigmoid))
    after = DROP.run(before)
    assert kinds(after) == ["Sigmoid", "Rescale"]
    assert_same_function(before, after)


def test_reversal_is_no_identity() -> None:
    net = Net(x=(1, 3, 3, 3))
    backwards = {"starts": (0, 2, 0, 0), "sizes": (1, 3, 3, 3), "steps": (1, -1, 1, 1)}
    before = net.graph(net.add("flip", Slice, "x", **backwards))
    assert kinds(DROP.run(before)) == ["Slice"]


def test_movements_merge() -> None:
    net = Net(x=(1, 2, 3, 4))
    y = net.add("s", Sigmoid, "x")
    y = net.add("r1", Reshape, y, shape=(1, 24))
    y = net.add("r2", Reshape, y, shape=(1, 4, 3, 2))
    y = net.add("t1", Transpose, y, permutation=(0, 2, 3, 1))
    y = net.add("t2", Transpose, y, permutation=(0, 2, 3, 1))
    before = net.graph(y)
    after = DROP.run(before)
    assert kinds(after) == ["Sigmoid", "Reshape", "Transpose"]
    assert_same_function(before, after)
    before = net.graph(net.add("t3", Transpose, y, permutation=(0, 2, 3, 1)))
    after = DROP.run(before)
    assert kinds(after) == ["Sigmoid", "Reshape"]
    assert_same_function(before, after)


def pad(net: Net, x: str, **fields: object) -> str:
    return net.add("pad", Pad, x, begins=(0, 0, 0, 1), ends=(0, 0, 2, 1), **fields)


def test_conv_takes_zero_pads() -> None:
    net = Net(x=(1, 2, 6, 6))
    before = net.graph(net.conv("conv", pad(net, "x"), 3, strides=(2, 2)))
    after = DROP.run(before)
    (op,) = after.ops
    assert isinstance(op, Conv)
    assert (op.pads_begin, op.pads_end) == ((1, 2), (3, 2))
    assert_same_function(before, after)


@pytest.mark.parametrize("fields", [{"mode": PadMode.EDGE}, {"value": 1.0}])
def test_conv_leaves_other_pads(fields: dict[str, object]) -> None:
    net = Net(x=(1, 2, 6, 6))
    before = net.graph(net.conv("conv", pad(net, "x", **fields), 3))
    assert kinds(DROP.run(before)) == ["Pad", "Conv"]


@pytest.mark.parametrize(
    ("own", "count", "ceil_mode", "folds"),
    [
        (0, False, False, True),
        (0, True, False, True),
        (1, True, False, True),
        (1, False, False, False),
        (0, False, True, False),
    ],
)
def test_average_pool_takes_zero_pads(own: int, count: bool, ceil_mode: bool, folds: bool) -> None:
    net = Net(x=(1, 2, 6, 6))
    pool = net.add(
        "pool",
        AveragePool,
        pad(net, "x"),
        kernel=(3, 3),
        strides=(2, 2),
        pads_begin=(own, own),
        pads_end=(own, own),
        dilations=(1, 1),
        ceil_mode=ceil_mode,
        count_include_pad=count,
    )
    before = net.graph(pool)
    after = DROP.run(before)
    assert kinds(after) == (["AveragePool"] if folds else ["Pad", "AveragePool"])
    assert_same_function(before, after)


def test_squeezed_class_map() -> None:
    net = Net(x=(1, 4, 5, 6))
    classes = net.add("classes", ArgMax, "x", axis=1)
    before = net.graph(net.add("squeeze", Reshape, classes, shape=(1, 5, 6)))
    after = DROP.run(before)
    assert kinds(after) == ["ArgMax"]
    assert_same_function(before, after)
    before = net.graph(net.add("flat", Reshape, classes, shape=(1, 30)))
    assert kinds(DROP.run(before)) == ["ArgMax", "Reshape"]


def expanded(net: Net, name: str, x: str, shape: tuple[int, ...]) -> str:
    return net.add(name, Mul, x, net.constant(np.ones(shape, np.float32)))


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 4, 5, 6)])
def test_sums_and_products_repeat_themselves(shape: tuple[int, ...]) -> None:
    """x * psi.expand_as(x), as attention gates are written."""
    net = Net(x=(1, 4, 5, 6), psi=(1, 1, 5, 6))
    wide = expanded(net, "expand", "psi", shape)
    before = net.graph(net.add("sum", Add, net.add("gate", Mul, wide, "x"), wide))
    after = DROP.run(before)
    assert [op.name for op in after.ops] == ["gate", "sum"]
    assert_same_function(before, after)


def test_one_pixel_is_repeated_by_its_product() -> None:
    net = Net(x=(1, 4, 5, 6), s=(1, 4, 1, 1))
    wide = net.add("expand", NearestResize, "s", sources=((0,) * 5, (0,) * 6))
    before = net.graph(net.add("scale", Mul, "x", wide))
    after = DROP.run(before)
    assert kinds(after) == ["Mul"]
    assert_same_function(before, after)


def test_expansions_that_are_needed_stay() -> None:
    net = Net(x=(1, 4, 5, 6), psi=(1, 1, 5, 6), s=(1, 4, 1, 1))
    wide = expanded(net, "expand", "psi", (1, 4, 1, 1))
    square = net.add("square", Mul, wide, wide)
    column = net.add("column", NearestResize, "s", sources=((0,) * 5, (0,)))
    rest = expanded(net, "rest", "psi", (1, 4, 1, 1))
    twice = net.add("twice", NearestResize, "x", sources=((0, 0, 1, 2, 3), (0, 1, 2, 3, 4, 5)))
    graph = net.graph(
        square,
        net.add("outer", Mul, column, column),
        net.add("one", Mul, rest, "x"),
        net.add("other", Concat, rest, "x", axis=1),
        net.add("product", Mul, twice, "x"),
    )
    assert DROP.run(graph) == graph
