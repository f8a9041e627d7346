"""Scores measured on images, and weights fitted to what a network computed before pruning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import RELU, Add, Concat, Conv, MatMul, ReduceMean
from qcompile.passes.base import run_passes
from qcompile.passes.channel_classes import channel_classes
from qcompile.passes.masked_constants import masked_constants
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.reader_errors import GivenScores, reader_errors
from qcompile.passes.refit_readers import RefitReaders, peak_bytes
from qcompile.passes.remove_channels import remove_channels
from qcompile.sim.executor import Executor
from qcompile.types import Array
from qcompile.verifier import verify
from tests.passes.nets import Net
from tests.passes.pruned_nets import mobile_net, u_net, valid_net

Feeds = list[Mapping[str, Array]]


def images(graph: Graph, count: int = 6, seed: int = 3) -> Feeds:
    rng = np.random.default_rng(seed)
    return [
        {n: rng.normal(size=graph.types[n].shape).astype("float32") for n in graph.inputs}
        for _ in range(count)
    ]


def test_the_error_is_the_share_of_the_reader_that_a_channel_makes() -> None:
    """By the definition: hold one channel at its mean, and see what the reader loses."""
    net = Net(x=(1, 3, 12, 12))
    a = net.conv("a", "x", 5, activation=RELU)
    graph = net.graph(net.conv("y", a, 4, pad=0))
    feeds = images(graph)
    errors = reader_errors(graph, feeds)
    executor = Executor(graph)
    maps = [executor.run(feed, taps=["a"]) for feed in feeds]
    weights = graph.constants[graph.by_name["y"].inputs[1]].astype("float64")
    sums = np.stack([found["y"][0] for found in maps]).astype("float64")
    variance = sums.var(axis=(0, 2, 3))
    for channel in range(5):
        windows = [
            np.lib.stride_tricks.sliding_window_view(found["a"][0, channel], (3, 3))
            for found in maps
        ]
        parts = np.einsum("nhwij,mij->mnhw", np.stack(windows), weights[:, channel])
        expected = (parts.reshape(4, -1).var(axis=1) / variance).mean()
        assert errors[("a", channel)] == pytest.approx(expected, rel=1e-3)


def test_errors_of_all_readers_count_and_ties_share_theirs() -> None:
    net = Net(x=(1, 3, 8, 8))
    a = net.conv("a", "x", 4)
    b = net.conv("b", "x", 4)
    total = net.add("total", Add, a, b)
    joined = net.add("joined", Concat, total, a, axis=1)
    mean = net.add("mean", ReduceMean, b, axes=(2, 3), keepdims=False)
    product = net.add("product", MatMul, mean, net.random(4, 2), net.random(2))
    graph = net.graph(net.conv("y", joined, 2), product)
    errors = reader_errors(graph, images(graph))
    for channels in channel_classes(graph).removable:
        assert len({errors[channel] for channel in channels}) == 1
    assert errors[("a", 0)] == errors[("b", 0)] == errors[("joined", 4)] == errors[("mean", 0)]


def test_a_channel_that_never_changes_matters_least() -> None:
    net = Net(x=(1, 2, 8, 8))
    a = net.conv("a", "x", 4, activation=RELU)
    graph = net.graph(net.conv("y", a, 3))
    bias = graph.constants[graph.by_name["a"].inputs[2]].copy()
    bias[2] = -100.0
    graph.constants[graph.by_name["a"].inputs[2]][:] = bias  # type: ignore[index]
    errors = reader_errors(graph, images(graph))
    assert min(range(4), key=lambda index: errors[("a", index)]) == 2
    assert errors[("a", 2)] == pytest.approx(0, abs=1e-9)


def loss(graph: Graph, other: Graph, feeds: Feeds) -> float:
    """Mean squared difference of all outputs, relative to their variance."""
    before, after = Executor(graph), Executor(other)
    result = 0.0
    for name in graph.outputs:
        wanted = np.stack([before.run(feed)[name] for feed in feeds])
        found = np.stack([after.run(feed)[name] for feed in feeds])
        result += float(np.square(wanted - found).mean() / wanted.var())
    return result


@pytest.mark.parametrize("net", [u_net, valid_net])
def test_refitting_helps_on_images_it_has_not_seen(net: object) -> None:
    graph = net()  # type: ignore[operator]
    feeds = images(graph, 24)
    pruner = PruneFilters(0.25, GivenScores(reader_errors(graph, feeds)))
    removed = frozenset().union(*(item.channels for item in pruner.choose(graph)))
    pruned = pruner.run(graph)
    fitted = run_passes(pruned, (RefitReaders(graph, removed, feeds),))
    assert [(op.name, op.kind) for op in fitted.ops] == [(op.name, op.kind) for op in pruned.ops]
    fresh = images(graph, 8, seed=99)
    assert loss(graph, fitted, fresh) < 0.8 * loss(graph, pruned, fresh)


def test_few_outputs_to_learn_from_only_move_the_bias() -> None:
    """A product behind a global mean has one output an image."""
    graph = mobile_net()
    gone = frozenset({("squeeze", 0)})
    fitted = RefitReaders(graph, gone, images(graph, 3)).run(remove_channels(graph, gone))
    before, after = graph.by_name["excite"].inputs, fitted.by_name["excite"].inputs
    kept = graph.constants[before[1]][1:]
    np.testing.assert_array_equal(fitted.constants[after[1]], kept)
    assert not np.array_equal(fitted.constants[after[2]], graph.constants[before[2]])


def test_what_others_say_as_well_is_not_lost() -> None:
    """A filter that is the sum of two others: its reader gets along without it."""
    net = Net(x=(1, 2, 10, 10))
    a = net.conv("a", "x", 4)
    graph = net.graph(net.conv("y", a, 3, pad=0, kernel=1))
    weights, bias = (graph.constants[name] for name in graph.by_name["a"].inputs[1:])
    weights[3], bias[3] = weights[0] + weights[1], bias[0] + bias[1]
    gone = frozenset({("a", 3)})
    feeds = images(graph, 8)
    pruned = remove_channels(graph, gone, masked_constants(graph, [gone]))
    fitted = RefitReaders(graph, gone, feeds).run(pruned)
    verify(fitted)
    fresh = images(graph, 4, seed=7)
    assert loss(graph, pruned, fresh) > 0.05
    assert loss(graph, fitted, fresh) < 1e-3


def test_where_nothing_was_removed_nothing_changes() -> None:
    graph = u_net()
    fitted = RefitReaders(graph, frozenset(), images(graph, 2)).run(graph)
    for op in graph.ops:
        if isinstance(op, Conv):
            after = fitted.by_name[op.name]
            for name, other in zip(op.inputs[1:], after.inputs[1:], strict=True):
                np.testing.assert_array_equal(graph.constants[name], fitted.constants[other])


def test_bytes_of_an_image() -> None:
    net = Net(x=(1, 2, 10, 10))
    a = net.conv("a", "x", 4)
    b = net.conv("b", a, 3)
    graph = net.graph(net.add("joined", Concat, a, b, axis=1))
    # While they are joined: a (4 channels), b (3) and both together (7).
    assert peak_bytes(graph) == 14 * 100 * 4


def test_it_is_deterministic() -> None:
    graph = u_net()
    feeds = images(graph, 4)
    gone = frozenset({("d", 1), ("pad", 1), ("crop", 1)})
    pruned = remove_channels(graph, gone)
    first, second = (RefitReaders(graph, gone, feeds).run(pruned) for _ in range(2))
    for name, data in first.constants.items():
        np.testing.assert_array_equal(data, second.constants[name])
