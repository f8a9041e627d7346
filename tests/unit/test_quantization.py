"""What each effort does: better sums than nearest codes, the same ones every time."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import RELU, Activation, Add, Affine, Concat, MaxPool, Rescale, SumOp
from qcompile.options import Effort
from qcompile.passes import compensation
from qcompile.passes.assign_formats import assign_formats
from qcompile.quantization import METHODS, PLAIN, Method, resolved_effort
from qcompile.sim.executor import Executor
from qcompile.types import CodebookKind
from qcompile.verifier import verify
from tests.passes.nets import Net
from tests.passes.pruned_nets import mobile_net, u_net, window
from tests.passes.quantised import decibels, images, lowered, options, quantization

ROOT = Path(__file__).resolve().parents[2]
NORM = Activation(
    slope=(0.0,), gain=(1.0, -0.7, 2.0, 0.5, -1.5, 1.0), shift=(0.3, 1.1, -0.9, 0.0, 2.0, -0.2)
)


def norm_net() -> Graph:
    """Norms behind ReLUs, some of falling channels."""
    net = Net(x=(1, 2, 10, 10))
    a = net.conv("a", "x", 6, activation=NORM)
    b = net.conv("b", a, 6, activation=NORM)
    return net.graph(net.conv("y", b, 2))


def residual_net() -> Graph:
    net = Net(x=(1, 2, 10, 10))
    a = net.conv("a", "x", 6, activation=RELU)
    for index in range(2):
        inner = net.conv(f"inner{index}", a, 6, activation=RELU)
        a = net.add(f"sum{index}", Add, net.conv(f"last{index}", inner, 6), a, activation=RELU)
    return net.graph(net.conv("y", a, 2))


def up_net() -> Graph:
    net = Net(x=(1, 2, 8, 8))
    a = net.conv("a", "x", 4, activation=RELU)
    b = net.conv("b", net.add("small", MaxPool, a, **window(2)), 8, activation=RELU)
    joined = net.add("joined", Concat, net.up("up", b, 4), a, axis=1)
    return net.graph(net.conv("y", net.conv("c", joined, 6, activation=RELU), 2))


def depthwise_net() -> Graph:
    net = Net(x=(1, 4, 10, 10))
    a = net.conv("a", "x", 8, kernel=1, pad=0, activation=RELU)
    b = net.conv("b", a, 8, groups=8, activation=RELU)
    c = net.conv("c", b, 8, groups=4, activation=RELU)
    return net.graph(net.conv("y", c, 2, kernel=1, pad=0))


NETS: list[Callable[[], Graph]] = [norm_net, residual_net, up_net, depthwise_net]


@pytest.mark.parametrize("wbits", ["ternary", "4"])
@pytest.mark.parametrize("make", NETS)
def test_sums_are_closer_than_by_nearest_codes(make: Callable[[], Graph], wbits: str) -> None:
    """On images that the codes were not chosen for, too."""
    graph = make()
    feeds, fresh = images(graph, 6), images(graph, 4, seed=77)
    marks = {
        effort: decibels(graph, feeds, fresh, wbits=wbits, effort=effort)
        for effort in ("nearest", "fast", "normal")
    }
    assert marks["normal"] > marks["nearest"] + 2
    assert marks["normal"] > marks["fast"] - 0.5


@pytest.mark.parametrize(
    "fields",
    [
        {"abits": "32"},
        {"wbits": "32"},
        {"quantizer": "fixed"},
        {"abits": "ternary"},
        {"wbits": "binary"},
        {"abits": "16", "wbits": "8"},
    ],
)
@pytest.mark.parametrize("make", [u_net, mobile_net])
def test_every_format_gives_a_valid_network(
    make: Callable[[], Graph], fields: dict[str, str]
) -> None:
    graph = make()
    found = lowered(graph, images(graph, 2), effort="fast", **fields)
    for stage in (found.real, found.quantized, found.integer):
        verify(stage)


def activation(graph: Graph, name: str) -> Activation:
    op = graph.by_name[name]
    assert isinstance(op, SumOp)
    return op.activation


def test_a_norm_behind_a_relu_starts_on_a_code() -> None:
    graph = norm_net()
    feeds = images(graph)
    found = lowered(graph, feeds, effort="normal")
    real = Executor(found.real).run(feeds[0], taps="all")
    codes = Executor(found.integer).run(feeds[0], taps="all")
    for name in ("a", "b"):
        kind, shift = found.quantized.types[name], activation(found.quantized, name).shift
        assert kind.limits is not None
        assert kind.quantization is not None
        assert found.integer.types[name].limits == kind.limits
        rest = real[name][0] == np.asarray(activation(found.real, name).shift)[:, None, None]
        for channel, gain in enumerate(NORM.gain):
            ends = kind.limits.at(channel)
            assert ends.high - ends.low + 1 <= 64
            start = ends.low if gain > 0 else ends.high
            assert shift[channel] == start * kind.quantization.scale[0]
            data = codes[name][0, channel]
            assert ends.low <= data.min()
            assert data.max() <= ends.high
            if name == "a" and rest[channel].any():
                # Behind the first layer's 8-bit rounding hardly a pixel changes sides.
                assert (data[rest[channel]] == start).mean() > 0.95
        assert any(kind.limits.at(c).high - kind.limits.at(c).low == 63 for c in range(6))


def test_without_compensation_norms_keep_their_shifts() -> None:
    graph = norm_net()
    found = lowered(graph, images(graph), effort="nearest")
    assert activation(found.quantized, "a") == NORM


def test_codes_of_every_quantizer_lie_on_its_grid() -> None:
    graph = residual_net()
    feeds = images(graph, 2)
    for fields, largest in (({"wbits": "ternary"}, 1), ({"quantizer": "fixed"}, 7)):
        found = lowered(graph, feeds, effort="normal", **fields).quantized
        for name in ("inner0", "last1"):
            weights = found.by_name[name].inputs[1]
            kind = found.types[weights]
            assert np.abs(found.constants[weights]).max() == largest
            assert kind.quantization is not None
            assert kind.codebook is not None
            if largest == 1:
                assert kind.codebook.kind is CodebookKind.TERNARY
            else:
                assert kind.quantization.is_power_of_two


def digest() -> str:
    """Of all codes and biases that `normal` finds."""
    graph = up_net()
    found = lowered(graph, images(graph, 3), effort="normal").quantized
    sums = hashlib.sha256()
    for name in sorted(found.constants):
        sums.update(name.encode())
        sums.update(found.constants[name].tobytes())
    return sums.hexdigest()


def test_two_processes_find_the_same() -> None:
    code = "from tests.unit.test_quantization import digest; print(digest())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ, PYTHONHASHSEED="7", OMP_NUM_THREADS="3"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == digest()


def test_progress_counts_the_operators() -> None:
    graph = residual_net()
    found = quantization(graph, images(graph, 2), effort="best")
    told: list[tuple[int, int]] = []
    small = {Effort.BEST: tuple(_smaller(method) for method in METHODS[Effort.BEST])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qcompile.quantization.METHODS", small)
        found.lowered(assign_formats(graph, found.options), lambda *step: told.append(step))
    total = len(graph.ops) * len(small[Effort.BEST])
    assert told == [(done, total) for done in range(1, total + 1)]


def _smaller(method: Method) -> Method:
    return dataclasses.replace(method, recipe=compensation.Recipe(positions=50))


def test_images_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net()
    feeds = images(graph, 9)

    def used() -> int:
        return len(
            compensation.Compensation(graph, graph, {}, compensation.Recipe(), feeds, 0).feeds
        )

    assert used() == 9
    values = 3 * 6 * 100  # a, inner, last live together
    monkeypatch.setattr(compensation, "MEMORY", 2 * 4 * values * 6)
    assert used() == 6
    monkeypatch.setattr(compensation, "MEMORY", 1)
    assert used() == compensation.FEWEST_IMAGES


def test_layers_of_very_many_columns_are_rounded_to_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = residual_net()
    feeds = images(graph, 3)
    nearest, normal = (lowered(graph, feeds, effort=e).quantized for e in ("nearest", "normal"))
    monkeypatch.setattr(compensation, "MOST_COLUMNS", 10)
    found = quantization(graph, feeds, effort="normal")
    plan = assign_formats(graph, found.options)
    method = dataclasses.replace(METHODS[Effort.NORMAL][0], balance=None)
    simple = found.by(method, plan).quantized
    for name in ("inner0", "last1", "y"):
        same = [graph.constants[graph.by_name[name].inputs[1]] for graph in (nearest, simple)]
        np.testing.assert_array_equal(same[0], same[1])
        other = normal.constants[normal.by_name[name].inputs[1]]
        assert not np.array_equal(other, same[0])
        biases = [graph.constants[graph.by_name[name].inputs[2]] for graph in (nearest, simple)]
        assert not np.array_equal(biases[0], biases[1])


def test_a_network_without_weights() -> None:
    net = Net(x=(1, 2, 6, 6))
    twice = net.add("twice", Add, "x", "x", activation=RELU)
    scaled = net.add("scaled", Affine, twice, net.random(2), net.random(2))
    graph = net.graph(net.add("y", Rescale, scaled, activation=RELU))
    assert decibels(graph, images(graph), effort="normal") > 30


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_of_one_value(value: float) -> None:
    graph = residual_net()
    feeds = [{"x": np.full((1, 2, 10, 10), value, np.float32)}] * 2
    found = lowered(graph, feeds, effort="normal")
    verify(found.integer)
    assert decibels(graph, feeds, effort="normal") > 20


def test_values_beyond_all_squares() -> None:
    """1e20 squared is no float32: nearest codes, then."""
    net = Net(x=(1, 2, 6, 6))
    graph = net.graph(net.conv("y", net.conv("a", "x", 3, activation=RELU), 2))
    feeds = [{"x": feed["x"] * np.float32(1e22)} for feed in images(graph, 2)]
    with np.errstate(over="ignore", invalid="ignore"):
        found = lowered(graph, feeds, effort="normal")
    verify(found.integer)
    weights = found.quantized.constants[found.quantized.by_name["a"].inputs[1]]
    assert np.abs(weights).max() <= 127


def test_efforts() -> None:
    graph = residual_net()
    images_given, none = True, False
    assert resolved_effort(options(), graph, images_given) is Effort.NORMAL
    assert resolved_effort(options(), graph, none) is Effort.NEAREST
    assert resolved_effort(options(effort="fast"), graph, images_given) is Effort.FAST
    published = options(effort="best", quantizer="dorefa")
    assert resolved_effort(published, graph, images_given) is Effort.NEAREST
    feeds = images(graph, 1)
    assert quantization(graph, feeds, effort="nearest").methods() == (PLAIN,)
    without = dataclasses.replace(quantization(graph, feeds, effort="normal"), feeds=())
    assert without.methods() == (PLAIN,)
