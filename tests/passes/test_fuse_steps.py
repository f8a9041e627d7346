"""Comparisons of one tensor as one function, and functions of three values as grids."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    FakeQuantize,
    Mul,
    Rescale,
    Steps,
    TernaryTanh,
)
from qcompile.passes.fuse_steps import FuseSteps
from qcompile.passes.harden_ternary_tanh import HardenTernaryTanh, soft_betas
from qcompile.passes.ternary_grids import TernaryGrids, has_ternary
from qcompile.sim.executor import Executor
from qcompile.types import Array, Rounding
from tests.passes.nets import Net, kinds

ABOVE, BELOW = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
NOT = Activation(gain=(-1.0,), shift=(1.0,))
HARD = (-1.0, 0.0, 0.0, 0.0, 1.0)


def steps(net: Net, name: str, x: str, limit: float, values: tuple[float, ...]) -> str:
    return net.add(name, Steps, x, limits=(limit,), values=values)


def sign_times_mask(net: Net) -> str:
    sign = steps(net, "sign", "x", 0.0, (-1.0, 0.0, 1.0))
    size = net.add("abs", Rescale, "x", activation=Activation(slope=(-1.0,)))
    return net.add("y", Mul, sign, steps(net, "mask", size, 0.5, ABOVE))


def difference(net: Net) -> str:
    above, below = steps(net, "a", "x", 0.5, ABOVE), steps(net, "b", "x", -0.5, BELOW)
    return net.add("y", Add, above, below, weights=(1, -1))


def nested_where(net: Net) -> str:
    above, below = steps(net, "a", "x", 0.5, ABOVE), steps(net, "b", "x", -0.5, BELOW)
    inner = net.add("inner", Rescale, below, activation=Activation(gain=(-1.0,)))
    otherwise = net.add("else", Mul, net.add("not", Rescale, above, activation=NOT), inner)
    return net.add("y", Add, above, otherwise)


def of_a_product(net: Net) -> str:
    double = net.add("double", Rescale, "x", activation=Activation(gain=(2.0,)))
    above, below = steps(net, "a", double, 1.0, ABOVE), steps(net, "b", "x", -0.5, BELOW)
    return net.add("y", Add, above, below, weights=(1, -1))


@pytest.mark.parametrize("spelling", [sign_times_mask, difference, nested_where, of_a_product])
def test_hard_ternary_functions(spelling: object) -> None:
    net = Net(x=(1, 1, 1, 13))
    assert callable(spelling)
    before = net.graph(spelling(net))
    after = FuseSteps().run(before)
    (op,) = after.ops
    assert isinstance(op, Steps)
    assert (op.inputs, op.limits, op.values) == (("x",), (-0.5, 0.5), HARD)
    assert same_at_quarters(before, after)


def same_at_quarters(before: Graph, after: Graph) -> bool:
    feeds = {"x": (np.arange(13, dtype=np.float32) / 4 - 1.5).reshape(1, 1, 1, 13)}
    return bool((Executor(before).run(feeds)["y"] == Executor(after).run(feeds)["y"]).all())


def test_whatever_is_constant_between_limits() -> None:
    rng = np.random.default_rng(4)
    for _ in range(40):
        net = Net(x=(1, 1, 1, 13))
        values = []
        for index in range(3):
            x = "x"
            if rng.random() < 0.5:
                bend = Activation(
                    slope=(float(rng.integers(-2, 3)) / 2,), gain=(float(rng.choice([-2.0, 0.5])),),
                    shift=(float(rng.integers(-2, 3)) / 4,),
                )  # fmt: skip
                x = net.add(f"r{index}", Rescale, x, activation=bend)
            limit = float(rng.integers(-4, 5)) / 4
            numbers = tuple(float(value) for value in rng.integers(-2, 3, 3))
            values.append(steps(net, f"s{index}", x, limit, numbers))
        total = net.add("t", Mul if rng.random() < 0.5 else Add, values[0], values[1])
        before = net.graph(net.add("y", Add, total, values[2], weights=(1, -1)))
        after = FuseSteps().run(before)
        assert same_at_quarters(before, after)
        constant = all(len(set(op.values)) > 1 for op in before.ops if isinstance(op, Steps))
        assert kinds(after) == ["Steps"] or not constant or "Add" in kinds(after)


def test_other_operands_stay() -> None:
    net = Net(x=(1, 2, 3, 3), z=(1, 2, 3, 3))
    a, b = steps(net, "a", "x", 0.5, ABOVE), steps(net, "b", "z", 0.5, ABOVE)
    assert kinds(FuseSteps().run(net.graph(net.add("y", Add, a, b)))) == ["Steps", "Steps", "Add"]
    clipped = net.add("relu", Rescale, a, activation=RELU)
    assert kinds(FuseSteps().run(net.graph(clipped))) == ["Steps", "Rescale"]
    by_channel = net.add("norm", Affine, a, net.random(2), net.random(2))
    assert kinds(FuseSteps().run(net.graph(by_channel))) == ["Steps", "Affine"]


def quantized(graph: Graph) -> tuple[FakeQuantize, float]:
    """The grid, and the factor in front of it."""
    after = TernaryGrids().run(graph)
    *before, last = after.ops
    assert isinstance(last, FakeQuantize)
    gain = 1.0
    for op in before:
        assert isinstance(op, Rescale)
        gain *= op.activation.gain[0]
    return last, gain


def hard(limit: float, values: tuple[float, ...]) -> Graph:
    net = Net(x=(1, 1, 1, 13))
    return net.graph(net.add("y", Steps, "x", limits=(-limit, limit), values=values))


def test_a_grid_of_three_codes() -> None:
    op, gain = quantized(hard(0.5, HARD))
    assert (op.scale, op.low, op.high, op.rounding, gain) == (1.0, -1, 1, Rounding.HALF_EVEN, 1.0)
    op, gain = quantized(hard(0.5, (-1.0, -0.5, 0.0, 0.5, 1.0)))
    assert (op.rounding, gain) == (Rounding.HALF_EVEN, 1.0)
    op, gain = quantized(hard(0.5, (-1.0, -1.0, 0.0, 1.0, 1.0)))
    assert (op.rounding, gain) == (Rounding.HALF_UP, 1.0)
    op, gain = quantized(hard(0.25, tuple(-0.75 * value for value in HARD)))
    assert (op.scale, gain) == (0.75, -1.5)


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.7, 1.1, 3.0, 47.3])
def test_what_is_at_an_odd_limit_does_not_pass_it(limit: float) -> None:
    limit = float(np.float32(limit))
    op, gain = quantized(hard(limit, HARD))
    assert Fraction(limit) * Fraction(gain) <= Fraction(op.scale) / 2
    above = Fraction(float(np.nextafter(np.float32(limit), np.float32(np.inf))))
    assert above * Fraction(gain) > Fraction(op.scale) / 2


def test_other_steps_are_no_grid() -> None:
    for limits, values in (
        ((-0.5, 0.25), HARD),
        ((-0.5, 0.5), (-1.0, 0.0, 0.5, 0.0, 1.0)),
        ((-0.5, 0.5), (-1.0, 0.0, 0.0, 0.0, 2.0)),
        ((-0.5, 0.5), (-1.0, -1.0, 0.0, 0.0, 1.0)),
        ((0.0,), (-1.0, 0.0, 1.0)),
    ):
        net = Net(x=(1, 1, 1, 13))
        graph = net.graph(net.add("y", Steps, "x", limits=limits, values=values))
        assert not has_ternary(graph)
        assert kinds(TernaryGrids().run(graph)) == ["Steps"]


def test_hardening_names_what_it_changes() -> None:
    graph = soft(3.0)
    assert soft_betas(graph) == {"act": 3.0}
    after = HardenTernaryTanh().run(graph)
    assert kinds(after) == ["Conv", "Steps"]
    assert soft_betas(after) == {}
    codes = run_on(after)
    assert set(np.unique(codes)) <= {-1.0, 0.0, 1.0}
    np.testing.assert_allclose(codes, run_on(soft(1e4)), atol=1e-3)


def soft(beta: float) -> Graph:
    net = Net(x=(1, 2, 4, 4))
    return net.graph(net.add("act", TernaryTanh, net.conv("conv", "x", 3), beta=beta))


def run_on(graph: Graph) -> Array:
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)}
    return Executor(graph).run(feeds)["act"]
