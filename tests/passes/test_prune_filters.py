"""Which filters go: methods, scopes, multiples, exclusions and budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import RELU, ArgMax, Conv, DepthToSpace, MaxPool, Slice
from qcompile.passes.channel_classes import channel_classes
from qcompile.passes.filter_importance import Magnitude
from qcompile.passes.prune_costs import PruneCosts
from qcompile.passes.prune_filters import PruneFilters
from qcompile.prune_options import (
    Amount,
    PruneConstants,
    PruneMethod,
    PruneScope,
    parse_amount,
)
from qcompile.verifier import verify
from tests.passes.nets import Net, run
from tests.passes.pruned_nets import attention_net, mobile_net, u_net, window


def test_classes_of_the_u_net() -> None:
    classes = {min(c): c for c in channel_classes(u_net()).removable}
    members = next(c for c in classes.values() if ("a", 0) in c)
    assert members == {("a", 0), ("down", 0), ("join", 0)}
    tied = next(c for c in classes.values() if ("b", 0) in c)
    assert {("b", 1), ("c", 0), ("res", 1), ("near", 0), ("join", 12), ("join", 13)} <= tied
    assert not any(name in ("x", "out") for c in classes.values() for name, _ in c)


def test_blocked_by_operators_that_mix_channels() -> None:
    net = Net(x=(1, 3, 4, 4))
    shuffled = net.add("d2s", DepthToSpace, net.conv("a", "x", 8), block=2)
    swapped = net.add(
        "reversed",
        Slice,
        net.conv("b", "x", 6),
        starts=(0, 5, 0, 0),
        sizes=(1, 4, 4, 4),
        steps=(1, -1, 1, 1),
    )
    classes = net.add("classes", ArgMax, net.conv("c", "x", 4), axis=1)
    graph = net.graph(net.conv("y", shuffled, 2), net.conv("z", swapped, 2), classes)
    assert channel_classes(graph).removable == ()
    assert PruneFilters(0.5).run(graph) is graph


def chain(filters: int = 8) -> tuple[Net, Graph]:
    net = Net(x=(1, 3, 6, 6))
    a = net.conv("a", "x", filters, activation=RELU)
    b = net.conv("b", a, filters, activation=RELU)
    return net, net.graph(net.conv("out", b, 2))


def filters_left(graph: Graph) -> dict[str, int]:
    return {op.name: graph.types[op.output].shape[1] for op in graph.ops if isinstance(op, Conv)}


LAYER = PruneScope.LAYER


@pytest.mark.parametrize("method", [PruneMethod.L1, PruneMethod.L2])
def test_the_smallest_filters_go(method: PruneMethod) -> None:
    _, graph = chain()
    weights = graph.constants["k0"].astype("float64").reshape(8, -1)
    size = np.abs(weights).mean(1) if method is PruneMethod.L1 else np.square(weights).mean(1)
    kept = np.sort(np.argsort(size)[4:])
    after = PruneFilters(0.5, Magnitude(method), LAYER, constants=PruneConstants.DROP).run(graph)
    verify(after)
    assert filters_left(after) == {"a": 4, "b": 4, "out": 2}
    first = after.by_name["a"]
    np.testing.assert_array_equal(after.constants[first.inputs[1]], graph.constants["k0"][kept])
    np.testing.assert_array_equal(after.constants[first.inputs[2]], graph.constants["k1"][kept])


def test_scale_of_a_layer_does_not_matter() -> None:
    _, graph = chain()
    constants = dict(graph.constants)
    constants["k0"] = constants["k0"] * np.float32(1000)
    scaled = dataclasses.replace(graph, constants=constants)
    assert filters_left(PruneFilters(0.4).run(scaled)) == filters_left(PruneFilters(0.4).run(graph))


def test_ratio_over_all_layers() -> None:
    _, graph = chain()
    left = filters_left(PruneFilters(0.25).run(graph))
    assert left["a"] + left["b"] == 12
    assert left["out"] == 2
    assert PruneFilters(0.0).run(graph) is graph


def test_one_filter_always_stays() -> None:
    _, graph = chain()
    after = PruneFilters(0.99, scope=LAYER).run(graph)
    verify(after)
    assert filters_left(after) == {"a": 1, "b": 1, "out": 2}
    assert min(filters_left(PruneFilters(0.99).run(graph)).values()) >= 1


@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_multiple(multiple: int) -> None:
    _, graph = chain(16)
    after = PruneFilters(0.55, multiple=multiple).run(graph)
    verify(after)
    left = filters_left(after)
    assert all(left[name] % multiple == 0 for name in ("a", "b"))
    assert left["a"] + left["b"] <= 32


def test_exclude() -> None:
    _, graph = chain()
    left = filters_left(PruneFilters(0.5, scope=LAYER, exclude=("a*",)).run(graph))
    assert left == {"a": 8, "b": 4, "out": 2}


@pytest.mark.parametrize(("ratio", "multiple"), [(-0.1, 1), (1.0, 1), (0.5, 0), (float("nan"), 1)])
def test_bad_options(ratio: float, multiple: int) -> None:
    with pytest.raises(UsageError):
        PruneFilters(ratio, multiple=multiple).run(chain()[1])


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="'encoder' matches no operator"):
        PruneFilters(0.5, exclude=("a", "encoder")).run(chain()[1])


def test_a_filter_without_score_stays() -> None:
    class Some:
        is_relative = False

        def scores(self, graph: Graph) -> Mapping[tuple[str, int], float]:
            return {("a", index): float(index) for index in (0, 3, 5, 7)}

    _, graph = chain()
    chosen = PruneFilters(0.5, Some()).choose(graph)
    assert sorted(item.filters[0] for item in chosen) == [("a", 0), ("a", 3)]


def macs(graph: Graph) -> int:
    total = 0
    for op in graph.ops:
        if isinstance(op, Conv):
            _, _, height, width = graph.types[op.output].shape
            total += graph.constants[op.inputs[1]].size * height * width
    return total


@pytest.mark.parametrize("scope", list(PruneScope))
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("share", ["80%", "50%", "25%"])
def test_flops_budget(scope: PruneScope, multiple: int, share: str) -> None:
    _, graph = chain(16)
    whole = 2 * macs(graph)
    amount = parse_amount(share, "--prune-flops")
    after = PruneFilters(0.0, scope=scope, multiple=multiple, flops=amount).run(graph)
    assert 2 * macs(after) <= amount.of(whole)
    # No more than needed: a filter (or four, of each layer) makes at most this difference.
    assert 2 * macs(after) > amount.of(whole) - 2 * whole * multiple / 16


@pytest.mark.parametrize(
    "graph",
    [u_net(), mobile_net(), attention_net()],
    ids=["u_net", "mobile_net", "attention_net"],
)
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_costs_foretell_the_removed_network(graph: Graph, ratio: float) -> None:
    pruner = PruneFilters(ratio, constants=PruneConstants.DROP)
    after = pruner.run(graph)
    left = {name: after.types[name].shape[1] for name in after.activations()}
    assert left != {name: graph.types[name].shape[1] for name in graph.activations()}
    # Operators keep their names; the gate's Flatten has blocks of channels.
    before, real = PruneCosts(graph), PruneCosts(after)
    assert before.flops(left) == real.flops({})
    assert before.bytes(left) == real.bytes({})
    assert real.flops({}) < before.flops({})


def test_bytes_budget_in_the_widths_of_the_plan() -> None:
    _, graph = chain(16)
    bits = {"a": 8, "b": 3, "out": 8}
    weights = {op.name: graph.constants[op.inputs[1]].size for op in graph.ops}
    whole = PruneCosts(graph, bits).bytes({})
    assert whole == sum(-(-weights[name] * width // 8) for name, width in bits.items())
    after = PruneFilters(0.0, bytes=Amount(Fraction(whole // 2), False), weight_bits=bits).run(
        graph
    )
    assert PruneCosts(after, bits).bytes({}) <= whole // 2
    assert PruneCosts(after, bits).bytes({}) > whole // 3


def test_a_ratio_and_a_budget_hold_both() -> None:
    _, graph = chain(16)
    budget = parse_amount("90%", "--prune-flops")
    left = filters_left(PruneFilters(0.5, flops=budget).run(graph))
    assert left["a"] + left["b"] == 16
    tight = PruneFilters(0.5, flops=parse_amount("10%", "--prune-flops")).run(graph)
    assert 2 * macs(tight) <= 2 * macs(graph) // 10


def test_a_budget_takes_first_what_matters_least_for_what_it_saves() -> None:
    net = Net(x=(1, 3, 8, 8))
    a = net.conv("a", "x", 8)
    down = net.add("down", MaxPool, a, **window(4))
    graph = net.graph(net.conv("y", a, 2), net.conv("z", net.conv("b", down, 8), 2))

    class Alike:
        is_relative = False

        def scores(self, graph: Graph) -> Mapping[tuple[str, int], float]:
            return {("a", c): 1.0 for c in range(8)} | {("b", c): 0.9 for c in range(8)}

    assert filters_left(PruneFilters(0.25, Alike()).run(graph))["b"] == 4
    after = PruneFilters(0.0, Alike(), flops=parse_amount("70%", "--prune-flops")).run(graph)
    left = filters_left(after)
    assert left["a"] < 8
    assert left["b"] == 8


def test_an_unreachable_budget_says_how_little_is_possible() -> None:
    _, graph = chain()
    with pytest.raises(UsageError, match=r"--prune-flops: \d+ FLOPs are left .* more than 10"):
        PruneFilters(0.0, flops=Amount(Fraction(10), False)).run(graph)


@settings(max_examples=25, deadline=None)
@given(
    ratio=st.floats(0.05, 0.95),
    method=st.sampled_from((PruneMethod.L1, PruneMethod.L2)),
    scope=st.sampled_from(PruneScope),
    constants=st.sampled_from(PruneConstants),
    multiple=st.sampled_from([1, 2, 4]),
    mobile=st.booleans(),
)
def test_every_choice_gives_a_sound_network(
    ratio: float,
    method: PruneMethod,
    scope: PruneScope,
    constants: PruneConstants,
    multiple: int,
    mobile: bool,
) -> None:
    graph = mobile_net() if mobile else u_net()
    after = PruneFilters(ratio, Magnitude(method), scope, multiple, (), constants).run(graph)
    verify(after)
    for name, data in run(after).items():
        assert np.isfinite(data).all()
        assert data.shape == graph.types[name].shape
