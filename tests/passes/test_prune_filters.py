"""Removed filters are gone, and the network equals the one whose readers ignore them."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    DepthToSpace,
    GroupNorm,
    LinearResize,
    LinearTaps,
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
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.prune_filters import PruneFilters, PruneMethod
from qcompile.passes.remove_channels import remove_channels
from qcompile.verifier import verify
from tests.passes.nets import Net, run


def ignoring(graph: Graph, removed: frozenset[Channel]) -> Graph:
    """The graph in which every weight that reads a removed channel is zero: the definition."""
    constants = dict(graph.constants)
    for op in graph.ops:
        if not isinstance(op, (Conv, ConvTranspose, MatMul)):
            continue
        name = op.inputs[1]
        weights = constants[name].copy()
        for value, index in removed:
            if value != op.inputs[0]:
                continue
            if isinstance(op, Conv) and op.groups == 1:
                weights[:, index] = 0
            elif graph.types[value].rank == 2 or getattr(op, "groups", 0) == 1:
                weights[index] = 0
        constants[name] = weights
    return dataclasses.replace(graph, constants=constants)


def removed_by(before: Graph, removed: frozenset[Channel]) -> Graph:
    after = remove_channels(before, removed)
    verify(after)
    expected, actual = run(ignoring(before, removed)), run(after)
    for name in before.outputs:
        assert after.types[name] == before.types[name]
        limit = 2e-5 * max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=limit)
    return after


def some_of(graph: Graph, share: float, seed: int = 0) -> frozenset[Channel]:
    """A random union of classes, never all channels of a value."""
    rng = np.random.default_rng(seed)
    left = {n: graph.types[n].shape[1] for n in graph.activations() if graph.types[n].rank > 1}
    removed: set[Channel] = set()
    for channels in channel_classes(graph).removable:
        names = [name for name, _ in channels]
        if rng.random() < share and all(left[name] > names.count(name) for name in names):
            removed |= channels
            for name in names:
                left[name] -= 1
    return frozenset(removed)


def window(size: int) -> dict[str, tuple[int, ...]]:
    return {
        "kernel": (size, size),
        "strides": (size, size),
        "pads_begin": (0, 0),
        "pads_end": (0, 0),
        "dilations": (1, 1),
    }


def u_net() -> Graph:
    """Encoder, pool, up-convolution, skip through Concat, residual, pads, resizes, norms."""
    net = Net(x=(1, 3, 8, 8))
    relu = {"activation": Activation(slope=(0.0,), gain=tuple(range(1, 7)), shift=(0.5,))}
    a = net.conv("a", "x", 6, **relu)
    down = net.add("down", MaxPool, a, **window(2))
    b = net.conv("b", down, 8, activation=RELU)
    c = net.conv("c", b, 8)
    b = net.add("res", Add, c, b, activation=RELU)
    b = net.add("norm", GroupNorm, b, net.random(8), net.random(8), groups=4, epsilon=1e-5)
    b = net.add("affine", Affine, b, net.random(8), net.random(8))
    up = net.up("up", b, 6)
    up = net.add("prelu", Rescale, up, activation=Activation(slope=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    other = net.add("near", NearestResize, b, sources=((0, 0, 1, 1, 2, 2, 3, 3),) * 2)
    joined = net.add("join", Concat, a, up, other, axis=1)
    d = net.conv("d", joined, 6, activation=RELU)
    d = net.add("pad", Pad, d, begins=(0, 0, 1, 1), ends=(0, 0, 1, 1))
    d = net.add("crop", Slice, d, starts=(0, 0, 1, 1), sizes=(1, 6, 8, 8), steps=(1,) * 4)
    return net.graph(net.conv("out", d, 2))


def mobile_net() -> Graph:
    """Depthwise and grouped filters, squeeze and excite gates by Flatten and MatMul, resize."""
    net = Net(x=(1, 3, 8, 8))
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


@pytest.mark.parametrize("graph", [u_net(), mobile_net()], ids=["u_net", "mobile_net"])
@pytest.mark.parametrize("seed", range(6))
def test_any_union_of_classes(graph: Graph, seed: int) -> None:
    removed = some_of(graph, 0.4, seed)
    assert removed
    # Removal of a channel that a norm shares statistics with is a removal of its whole group.
    after = removed_by(graph, removed)
    assert weights_of(after) < weights_of(graph)


def weights_of(graph: Graph) -> int:
    return sum(data.size for data in graph.constants.values())


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
        "part",
        Slice,
        net.conv("b", "x", 6),
        starts=(0, 2, 0, 0),
        sizes=(1, 4, 4, 4),
        steps=(1,) * 4,
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


@pytest.mark.parametrize("method", list(PruneMethod))
def test_the_smallest_filters_go(method: PruneMethod) -> None:
    _, graph = chain()
    weights = graph.constants["k0"].astype("float64").reshape(8, -1)
    size = np.abs(weights).mean(1) if method is PruneMethod.L1 else np.square(weights).mean(1)
    kept = np.sort(np.argsort(size)[4:])
    after = PruneFilters(0.5, method, per_layer=True).run(graph)
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
    after = PruneFilters(0.99, per_layer=True).run(graph)
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
    left = filters_left(PruneFilters(0.5, per_layer=True, exclude=("a*",)).run(graph))
    assert left == {"a": 8, "b": 4, "out": 2}


@pytest.mark.parametrize(("ratio", "multiple"), [(-0.1, 1), (1.0, 1), (0.5, 0), (float("nan"), 1)])
def test_bad_options(ratio: float, multiple: int) -> None:
    with pytest.raises(UsageError):
        PruneFilters(ratio, multiple=multiple).run(chain()[1])


@settings(max_examples=25, deadline=None)
@given(
    ratio=st.floats(0.05, 0.95),
    method=st.sampled_from(PruneMethod),
    per_layer=st.booleans(),
    multiple=st.sampled_from([1, 2, 4]),
    mobile=st.booleans(),
)
def test_every_choice_gives_a_sound_network(
    ratio: float, method: PruneMethod, per_layer: bool, multiple: int, mobile: bool
) -> None:
    graph = mobile_net() if mobile else u_net()
    after = PruneFilters(ratio, method, per_layer, multiple).run(graph)
    verify(after)
    for name, data in run(after).items():
        assert np.isfinite(data).all()
        assert data.shape == graph.types[name].shape
