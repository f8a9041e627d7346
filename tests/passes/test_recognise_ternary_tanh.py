"""The ternary tanh in the spellings of exporters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import Activation, Add, Affine, Mul, Rescale, Tanh, TernaryTanh
from qcompile.passes.base import run_passes
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.recognise_ternary_tanh import RecogniseTernaryTanh
from tests.passes.nets import Net, assert_same_function, kinds


class Writer(Net):
    """Scalar operators as the importer makes them."""

    def line(self, name: str, x: str, gain: float, shift: float = 0.0) -> str:
        count = self.shape(x)[1]
        parameters = (self.constant(np.full(count, value)) for value in (gain, shift))
        return self.add(name, Affine, x, *parameters)

    def neg(self, name: str, x: str) -> str:
        return self.add(name, Rescale, x, activation=Activation(gain=(-1.0,)))

    def sub(self, name: str, a: str, b: str) -> str:
        return self.add(name, Add, a, b, weights=(1, -1))

    def tanh(self, name: str, x: str) -> str:
        return self.add(name, Tanh, x)


Spelling = Callable[[Writer, str, float], str]


def published(net: Writer, x: str, beta: float) -> str:
    """0.5 * (tanh(2 beta x - beta) - tanh(-2 beta x - beta))"""
    right = net.tanh("right", net.line("a2", net.line("a", x, 2 * beta), 1, -beta))
    left = net.tanh("left", net.line("b2", net.line("b", x, -2 * beta), 1, -beta))
    return net.line("half", net.sub("sum", right, left), 0.5)


def negated_input(net: Writer, x: str, beta: float) -> str:
    right = net.tanh("right", net.line("a", x, 2 * beta, -beta))
    left = net.tanh("left", net.line("b", net.neg("neg", x), 2 * beta, -beta))
    return net.line("half", net.sub("sum", right, left), 0.5)


def shared_product(net: Writer, x: str, beta: float) -> str:
    steep = net.line("steep", x, 2 * beta)
    right = net.tanh("right", net.line("a", steep, 1, -beta))
    left = net.tanh("left", net.line("b", steep, 1, beta))
    return net.line("half", net.add("sum", Add, left, right), 0.5)


def shifted_input(net: Writer, x: str, beta: float) -> str:
    right = net.tanh("right", net.line("a2", net.line("a", x, 1, -0.5), 2 * beta))
    left = net.tanh("left", net.line("b2", net.line("b", x, 1, 0.5), 2 * beta))
    return net.line("half", net.add("sum", Add, right, left), 0.5)


def halves_inside(net: Writer, x: str, beta: float) -> str:
    right = net.line("h1", net.tanh("right", net.line("a", x, 2 * beta, -beta)), 0.5)
    left = net.line("h2", net.tanh("left", net.line("b", x, -2 * beta, -beta)), 0.5)
    return net.sub("sum", right, left)


def negated_outside(net: Writer, x: str, beta: float) -> str:
    right = net.tanh("right", net.line("a", x, -2 * beta, beta))
    left = net.tanh("left", net.line("b", x, -2 * beta, -beta))
    total = net.neg("neg", net.add("sum", Add, right, left))
    return net.line("half", total, 0.5)


SPELLINGS = [
    published, negated_input, shared_product, shifted_input, halves_inside, negated_outside,
]  # fmt: skip


def recognised(graph: Graph) -> Graph:
    passes = (RecogniseTernaryTanh(), FoldAffine(), FuseActivations(), DropNoOps())
    return run_passes(graph, passes)


@pytest.mark.parametrize("beta", [3.0, 5.6923, 8.0])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: Spelling, beta: float) -> None:
    net = Writer(x=(1, 3, 6, 6))
    norm = net.add("norm", Affine, net.conv("conv", "x", 4), net.random(4), net.random(4))
    before = net.graph(spelling(net, norm, beta))
    after = recognised(before)
    assert kinds(after) == ["Conv", "TernaryTanh"]
    tanh = after.ops[1]
    assert isinstance(tanh, TernaryTanh)
    assert tanh.beta == pytest.approx(beta, rel=1e-6)
    assert_same_function(before, after)


def test_a_norm_with_one_number_for_all_channels_is_none_of_the_functions_own() -> None:
    net = Writer(x=(1, 3, 6, 6))
    norm = net.line("norm", net.conv("conv", "x", 4), 0.75, 0.125)
    before = net.graph(published(net, norm, 3.0))
    after = RecogniseTernaryTanh().run(before)
    assert kinds(after) == ["Conv", "Affine", "TernaryTanh"]
    assert_same_function(before, after)


def test_norms_stay_out_of_the_weights_before_it() -> None:
    net = Writer(x=(1, 3, 6, 6))
    norm = net.add("norm", Affine, net.conv("conv", "x", 4), net.random(4), net.random(4))
    before = net.graph(published(net, norm, 3.0))
    weights = before.constants[before.by_name["conv"].inputs[1]]
    after = recognised(before)
    np.testing.assert_array_equal(after.constants[after.ops[0].inputs[1]], weights)


@pytest.mark.parametrize(("gain", "height"), [(2.0, 1.0), (1.0, 3.0), (0.25, -0.5)])
def test_other_limits_and_heights(gain: float, height: float) -> None:
    net = Writer(x=(1, 3, 6, 6))
    scaled = net.line("scaled", net.add("product", Mul, "x", "x"), gain)
    right = net.tanh("right", net.line("a", scaled, 6, -3))
    left = net.tanh("left", net.line("b", scaled, 6, 3))
    total = net.add("sum", Add, right, left)
    before = net.graph(net.line("last", total, height / 2))
    after = recognised(before)
    assert "Tanh" not in kinds(after)
    assert "Add" not in kinds(after)
    assert kinds(after).count("TernaryTanh") == 1
    assert_same_function(before, after)


def test_other_sums_of_tanh_stay() -> None:
    def graph(right: tuple[float, float], left: tuple[float, float], extra: float = 0.0) -> Graph:
        net = Writer(x=(1, 3, 6, 6))
        a = net.tanh("right", net.line("a", "x", *right))
        b = net.tanh("left", net.line("b", "x", *left))
        return net.graph(net.line("half", net.add("sum", Add, a, b), 0.5, extra))

    assert "TernaryTanh" in kinds(RecogniseTernaryTanh().run(graph((6, -3), (6, 3))))
    for right, left in (
        ((6, -3), (6, 3.1)),
        ((6, -3), (5, 3)),
        ((6, -3), (-6, 3)),
        ((6, 3), (6, 3)),
    ):
        assert "TernaryTanh" not in kinds(RecogniseTernaryTanh().run(graph(right, left)))
    lifted = RecogniseTernaryTanh().run(graph((6, -3), (6, 3), extra=0.5))
    assert kinds(lifted) == ["TernaryTanh", "Rescale", "Affine"]
    assert_same_function(graph((6, -3), (6, 3), extra=0.5), lifted)


def test_tanh_of_different_tensors_stays() -> None:
    net = Writer(x=(1, 3, 6, 6), z=(1, 3, 6, 6))
    right = net.tanh("right", net.line("a", "x", 6, -3))
    left = net.tanh("left", net.line("b", "z", 6, 3))
    before = net.graph(net.line("half", net.add("sum", Add, right, left), 0.5))
    assert "TernaryTanh" not in kinds(RecogniseTernaryTanh().run(before))
