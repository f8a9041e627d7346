"""Channels and heads of local attention that go."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import Conv, LocalAttention2d
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.masked_constants import masked_constants
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.reader_errors import GivenScores, reader_errors
from qcompile.passes.remove_channels import remove_channels
from qcompile.types import Array
from tests.passes.masked import close
from tests.passes.nets import Net, assert_same_function, run
from tests.passes.pruned_nets import attend, attention_net


def class_of(graph: Graph, channel: Channel) -> frozenset[Channel]:
    return next(item for item in channel_classes(graph).removable if channel in item)


def attention(graph: Graph, name: str) -> LocalAttention2d:
    op = graph.by_name[name]
    assert isinstance(op, LocalAttention2d)
    return op


def test_what_goes_together() -> None:
    graph = attention_net()
    assert class_of(graph, ("one.q", 3)) == {("one.q", 3), ("one.k", 3)}
    # The i-th channel of each of two heads.
    assert class_of(graph, ("two.q", 1)) == {(f"two.{s}", c) for s in "qk" for c in (1, 5)}
    values = class_of(graph, ("two.v", 2))
    assert values == {
        (n, c) for n in ("two.v", "two", "one.v", "one", "sum", "join") for c in (2, 5)
    }
    # A head of one channel, and one with two channels of values.
    assert class_of(graph, ("three", 4)) == {(f"three{s}", 4) for s in ("", ".q", ".k", ".v")}
    head = {("four.q", 1), ("four.k", 1)} | {(n, c) for n in ("four", "four.v") for c in (2, 3)}
    assert class_of(graph, ("four", 2)) == head


def without(graph: Graph, *channels: Channel) -> Graph:
    classes = [class_of(graph, channel) for channel in channels]
    constants = masked_constants(graph, classes)
    return remove_channels(graph, frozenset().union(*classes), constants)


def zeroed(graph: Graph, name: str, *rows: int) -> Graph:
    """A convolution whose filters `rows` are zeros."""
    op = graph.by_name[name]
    constants = dict(graph.constants)
    for parameter in op.inputs[1:]:
        data = constants[parameter].copy()
        data[list(rows)] = 0
        constants[parameter] = data
    return dataclasses.replace(graph, constants=constants)


def test_a_channel_of_queries_and_keys() -> None:
    """Its part of the scores is gone, with its embedding, also where the image has ended."""
    graph = attention_net()
    after = without(graph, ("one.q", 2), ("one.q", 5), ("two.q", 0))
    expected = zeroed(zeroed(graph, "one.q", 2, 5), "two.q", 0, 4)
    assert_same_function(expected, after)
    assert [after.types[f"{name}.k"].shape[1] for name in ("one", "two")] == [6, 6]
    assert attention(after, "two").heads == 2
    assert attention(after, "one").inputs[3] != attention(graph, "one").inputs[3]


def test_a_channel_of_values_leaves_the_shift_of_the_norm() -> None:
    net = Net(x=(1, 3, 6, 7))
    norm = (net.random(4), net.random(4))
    graph = net.graph(net.conv("y", attend(net, "a", "x", 4, 4, heads=2, norm=norm), 2, pad=0))
    classes = [class_of(graph, ("a", 1))]
    assert classes == [{("a.v", 1), ("a", 1), ("a.v", 3), ("a", 3)}]
    shift = graph.constants[attention(graph, "a").inputs[5]]
    assert masked_constants(graph, classes) == {("a", c): float(shift[c]) for c in (1, 3)}
    after = without(graph, ("a", 1))
    close(run(after)["y"], run(zeroed(graph, "a.v", 1, 3))["y"])


def test_values_with_a_bias_leave_none() -> None:
    """A constant times the weights of the window's part inside the image is a pattern."""
    net = Net(x=(1, 3, 6, 7))
    graph = net.graph(net.conv("y", attend(net, "a", "x", 2, 3, biased=True), 2))
    for channel in (("a", 1), ("a.q", 0)):
        assert masked_constants(graph, [class_of(graph, channel)]) == {}


def test_a_head_of_its_own() -> None:
    graph = attention_net()
    after = without(graph, ("three", 1), ("four", 4))
    assert [attention(after, name).heads for name in ("three", "four")] == [4, 3]
    assert after.types["four"].shape[1] == 6


def test_silent_channels_go_first_and_nothing_changes() -> None:
    """Queries, values and heads that are zero have the smallest errors."""
    graph = attention_net()
    silent = (("one.q", (1, 6)), ("two.q", (2, 6)), ("two.v", (0, 3)), ("three.v", (2,)))
    for name, rows in silent:
        graph = zeroed(graph, name, *rows)
    graph = zeroed(zeroed(graph, "one.v", 0, 3), "four.v", 4, 5)
    rng = np.random.default_rng(3)
    shape = graph.types["x"].shape
    feeds = [{"x": rng.normal(size=shape).astype("float32")} for _ in range(3)]
    errors = reader_errors(graph, feeds)
    for name, rows in silent[:2]:
        assert {row for row in range(8) if errors[(name, row)] == 0} == set(rows)
    units = len({min(c) for c in channel_classes(graph).removable})
    after = PruneFilters(6 / units, GivenScores(errors)).run(graph)
    assert after.types["three"].shape[1] == 4
    assert after.types["four"].shape[1] == 6
    assert after.types["one.q"].shape[1] == 6
    assert after.types["two.k"].shape[1] == 6
    assert after.types["two"].shape[1] == 4


@pytest.mark.parametrize("heads", [1, 2])
def test_errors_of_queries_by_hand(heads: int) -> None:
    net = Net(2, x=(1, 3, 4, 5))
    graph = net.graph(net.conv("y", attend(net, "a", "x", 4, 4, heads=heads), 2))
    feed = {"x": np.random.default_rng(1).normal(size=(1, 3, 4, 5)).astype("float32")}
    found = reader_errors(graph, [feed] * 4)
    weights = {s: graph.constants[graph.by_name[f"a.{s}"].inputs[1]][..., 0, 0] for s in "qk"}
    relative = graph.constants[attention(graph, "a").inputs[3]]
    pixels: dict[str, Array] = {s: np.tensordot(weights[s], feed["x"][0], 1) for s in "qk"}
    keys = np.pad(pixels["k"], ((0, 0), (1, 1), (1, 1)))
    terms = np.empty((4, 9, 4, 5))
    for position in range(9):
        y, x = divmod(position, 3)
        key = keys[:, y : y + 4, x : x + 5] + relative[:, y, x].reshape(-1, 1, 1)
        terms[:, position] = pixels["q"] * key
    terms -= terms.mean(1, keepdims=True)
    scores = np.square(terms.reshape(heads, -1, 9, 4, 5).sum(1)).sum((1, 2, 3)).repeat(4 // heads)
    share = np.square(terms).sum((1, 2, 3)) / scores / heads
    share = share.reshape(heads, -1).sum(0)
    # Pixels are drawn at random: 8192 of 20.
    np.testing.assert_allclose([found[("a.q", c)] for c in range(4 // heads)], share, rtol=0.06)


def test_constant_values_keep_all() -> None:
    net = Net(x=(1, 3, 4, 4))
    q, k = (net.conv(name, "x", 4, kernel=1, pad=0) for name in "qk")
    geometry = {"kernel": (3, 3), "pads_begin": (1, 1), "pads_end": (1, 1)}
    y = net.add(
        "a", LocalAttention2d, q, k, net.random(1, 2, 4, 4), net.random(4, 3, 3), **geometry
    )
    graph = net.graph(net.conv("y", y, 2))
    assert isinstance(graph.by_name["q"], Conv)
    assert channel_classes(graph).removable == ()
