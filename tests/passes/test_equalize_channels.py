"""Factors move from writers to readers: the function stays, and tensors get ranges alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qcompile.boundary import InputKind, InputSpec
from qcompile.graph import Graph
from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    Concat,
    GroupNorm,
    LocalAttention2d,
    MatMul,
    MaxPool,
    Sigmoid,
)
from qcompile.options import LayerOverride, RangeMethod
from qcompile.passes.activation_ranges import Member, choose_scale
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.calibrate import Calibration, calibrate
from qcompile.passes.channel_domains import ChannelDomains
from qcompile.passes.equalize_channels import Balance, EqualizeChannels
from qcompile.passes.quantize_activations import QuantizeActivations
from qcompile.passes.reader_energy import reader_energy
from tests.passes.nets import Net, assert_same_function
from tests.passes.pruned_nets import mobile_net, u_net, valid_net, window
from tests.passes.quantised import images, options, specs


def uneven(net: Net, name: str, x: str, filters: int, **fields: Any) -> str:
    """A convolution whose channels have ranges far apart."""
    value = net.conv(name, x, filters, **fields)
    op = net._ops[-1]
    sizes = np.geomspace(0.05, 5.0, filters).astype(np.float32)
    for parameter in op.inputs[1:]:
        data = net._constants[parameter]
        data *= sizes.reshape(-1, *[1] * (data.ndim - 1))
    return value


def pair(**fields: Any) -> Graph:
    net = Net(x=(1, 3, 8, 8))
    a = uneven(net, "a", "x", 6, **({"activation": RELU} | fields))
    return net.graph(net.conv("y", a, 3))


def skip_net() -> Graph:
    """Depthwise, grouped and transposed layers, a norm with negative gains, two Concats."""
    net = Net(x=(1, 3, 8, 8))
    gains = Activation(slope=(0.0,), gain=(1, -2, 0.5, 1, -1, 3), shift=(1, 0.5, -2, 0, 1, 0.1))
    a = uneven(net, "a", "x", 6, activation=gains)
    b = uneven(net, "b", net.add("small", MaxPool, a, **window(2)), 6, groups=6)
    c = uneven(net, "c", b, 6, groups=2, activation=Activation(slope=(0.1,)))
    n = net.add("n", Affine, c, net.random(6), net.random(6), activation=RELU)
    u = net.up("u", n, 6, groups=3)
    left = uneven(net, "left", u, 6)
    total = net.add("total", Add, left, u, activation=RELU)
    joined = net.add("joined", Concat, a, total, a, axis=1)
    d = uneven(net, "d", joined, 6, groups=3, activation=RELU)
    wide = net.add("wide", Concat, joined, d, axis=1)
    return net.graph(net.conv("y", wide, 2), net.conv("z", joined, 2))


def attention_net() -> Graph:
    """Local attention whose values, outputs and skip have uneven channels, and another behind."""
    net = Net(x=(1, 3, 8, 8))
    places: dict[str, Any] = {"kernel": (3, 3), "pads_begin": (1, 1), "pads_end": (1, 1)}
    a = uneven(net, "a", "x", 6, activation=RELU)
    for name, heads in (("m", 6), ("n", 2)):
        q, k = (net.conv(f"{name}{part}", a, 6, kernel=1, pad=0) for part in "qk")
        v = uneven(net, f"{name}v", a, 6, kernel=1, pad=0)
        relative = net.random(6, 3, 3)
        parameters = (net.random(6, low=0.1), net.random(6, low=0.1)) if name == "m" else ()
        activation = RELU if name == "m" else Activation()
        a = net.add(
            name,
            LocalAttention2d,
            *(q, k, v, relative, *parameters),
            heads=heads,
            activation=activation,
            **places,
        )
    return net.graph(net.conv("y", net.add("joined", Concat, a, "m", axis=1), 2))


def equalize(
    graph: Graph, balance: Balance = Balance.BOTH, calibration: Calibration | None = None, **o: Any
) -> EqualizeChannels:
    calibration = calibration or calibrate(graph, images(graph))
    plan = assign_formats(graph, options(**o))
    return EqualizeChannels(plan, calibration, specs(graph), balance)


NETS: list[Callable[[], Graph]] = [pair, skip_net, u_net, mobile_net, valid_net, attention_net]


@pytest.mark.parametrize("balance", list(Balance))
@pytest.mark.parametrize("make", NETS)
def test_the_function_stays(make: Callable[[], Graph], balance: Balance) -> None:
    graph = make()
    after = equalize(graph, balance).run(graph)
    assert_same_function(graph, after, 1e-4)
    moved = [op for op in graph.ops if after.by_name[op.name] != op]
    assert len(moved) >= 2


@pytest.mark.parametrize("make", NETS)
def test_its_statistics_are_those_of_the_new_graph(make: Callable[[], Graph]) -> None:
    graph = make()
    feeds = images(graph)
    found = equalize(graph, calibration=calibrate(graph, feeds))
    said, seen = found.calibrated(graph), calibrate(found.run(graph), feeds)
    assert said.values.keys() == seen.values.keys()
    assert said.images == seen.images
    for name, wanted in seen.values.items():
        size = wanted.magnitude
        for data in ("lows", "highs", "sample"):
            np.testing.assert_allclose(
                getattr(said.values[name], data), getattr(wanted, data), atol=2e-5 * size
            )


def test_ranges_come_closer() -> None:
    graph = pair()
    found = equalize(graph, Balance.RANGES).calibrated(graph).values["a"].highs
    before = calibrate(graph, images(graph)).values["a"].highs
    assert before.max() / before.min() > 20
    assert found.max() / found.min() < 5


def test_values_of_local_attention_and_what_it_computes_come_closer() -> None:
    graph = attention_net()
    before = calibrate(graph, images(graph)).values
    found = equalize(graph, Balance.RANGES).calibrated(graph).values
    for name in ("mv", "nv", "m", "n"):
        wide, narrow = (
            np.maximum(-values[name].lows, values[name].highs) for values in (before, found)
        )
        assert narrow.max() / narrow.min() < min(5, 0.5 * wide.max() / wide.min()), name
    for name in ("mq", "mk"):
        np.testing.assert_allclose(found[name].highs, before[name].highs)


def chosen_scales(graph: Graph, found: EqualizeChannels) -> dict[str, float]:
    """The scale of every activation after the pass."""
    after = found.run(graph)
    quantize = QuantizeActivations(found.plan, specs(graph), found.calibrated(graph), snap=True)
    quantized = quantize.run(after)
    grids = {name: quantized.types[name].quantization for name in graph.activations()}
    return {name: grid.scale[0] for name, grid in grids.items() if grid is not None}


def test_what_meets_in_a_concat_has_one_scale_that_is_best_for_each() -> None:
    net = Net(x=(1, 2, 10, 10))
    parts = [uneven(net, f"c{i}", "x", 4, activation=RELU) for i in range(3)]
    for size, op in zip((1, 30, 0.02), net._ops, strict=True):
        for parameter in op.inputs[1:]:
            net._constants[parameter] *= np.float32(size)
    graph = net.graph(net.conv("y", net.add("joined", Concat, *parts, axis=1), 2))
    found = equalize(graph, Balance.RANGES)
    scales = chosen_scales(graph, found)
    assert scales["c0"] == scales["c1"] == scales["c2"] == scales["joined"]
    statistics, after = found.calibrated(graph).values, found.run(graph)
    for name in parts:
        chosen = found.plan.layers[name].output
        element = chosen.element(signed=False)
        energy = reader_energy(after, name)
        member = Member(
            statistics[name], element, chosen.codebook(element).kind, None, energy, True
        )
        own = choose_scale([member], RangeMethod.BEST, False)
        assert own == pytest.approx(1.0, rel=0.02)
        assert scales[name] == pytest.approx(own, rel=0.05)


def test_what_meets_pixels_takes_their_scale() -> None:
    net = Net(x=(1, 1, 8, 8))
    a = uneven(net, "a", "x", 4, activation=RELU)
    graph = net.graph(net.conv("y", net.add("joined", Concat, "x", a, axis=1), 2))
    pixels = {"x": InputSpec(InputKind.UINT8)}
    feeds = [{"x": np.abs(feed["x"]) / 9} for feed in images(graph)]
    plan = assign_formats(graph, options(input_kind="uint8"))
    found = EqualizeChannels(plan, calibrate(graph, feeds), pixels)
    after = found.run(graph)
    assert_same_function(graph, after, 1e-4)
    quantized = QuantizeActivations(plan, pixels, found.calibrated(graph)).run(after)
    kinds = [quantized.types[name].quantization for name in ("x", "joined")]
    scales = [kind.scale[0] for kind in kinds if kind is not None]
    assert scales == pytest.approx([1 / 255, 1 / 255], rel=1e-5)


def sigmoid_net() -> Graph:
    net = Net(x=(1, 2, 6, 6))
    s = net.add("s", Sigmoid, uneven(net, "a", "x", 4))
    return net.graph(net.conv("y", s, 2))


def norm_net() -> Graph:
    """A group norm mixes the channels that it reads."""
    net = Net(x=(1, 2, 6, 6))
    a = uneven(net, "a", "x", 4)
    n = net.add("n", GroupNorm, a, net.random(4), net.random(4), groups=2, epsilon=1e-3)
    return net.graph(n)


def output_net() -> Graph:
    net = Net(x=(1, 2, 6, 6))
    a = uneven(net, "a", "x", 4, activation=RELU)
    return net.graph(net.conv("y", a, 2), a)


def joined_output_net() -> Graph:
    net = Net(x=(1, 2, 6, 6))
    a = uneven(net, "a", "x", 4, activation=RELU)
    joined = net.add("joined", Concat, a, "x", axis=1)
    return net.graph(joined, net.conv("y", a, 2))


def input_sum_net() -> Graph:
    net = Net(x=(1, 4, 6, 6))
    return net.graph(net.conv("y", net.add("s", Add, uneven(net, "a", "x", 4), "x"), 2))


def tokens_net() -> Graph:
    """Channels of the products are on the last axis."""
    net = Net(x=(1, 3, 5))
    a = net.add("a", MatMul, "x", net.random(5, 7), net.random(7), activation=RELU)
    return net.graph(net.add("y", MatMul, a, net.random(7, 2)))


@pytest.mark.parametrize(
    "graph",
    [
        pair(activation=Activation(slope=(0.0,), high=6.0)),
        pair(activation=Activation(low=-1.0)),
        sigmoid_net(),
        norm_net(),
        output_net(),
        joined_output_net(),
        input_sum_net(),
        tokens_net(),
    ],
    ids=["relu6", "clip", "sigmoid", "norm", "output", "joined output", "input sum", "tokens"],
)
def test_what_cannot_be_rescaled_is_untouched(graph: Graph) -> None:
    found = equalize(graph)
    after = found.run(graph)
    assert after.ops == graph.ops
    assert after.constants.keys() == graph.constants.keys()
    assert found.calibrated(graph).values == found.calibration.values


@pytest.mark.parametrize(
    "fields",
    [
        {"abits": "32"},
        {"abits": "Q2.3", "quantizer": "fixed"},
        {"quantizer": "dorefa"},
        {"layers": (LayerOverride("y", wbits="ternary", quantizer="twn"),)},
        {"layers": (LayerOverride("a", abits="32"),)},
        {"layers": (LayerOverride("a", scale=0.05),)},
        {"layers": (LayerOverride("a", wbits="binary"), LayerOverride("y", wbits="binary"))},
    ],
)
def test_floats_and_formats_that_mean_one_grid_are_untouched(fields: dict[str, Any]) -> None:
    graph = pair()
    assert equalize(graph, **fields).run(graph).ops == graph.ops


def test_weights_on_a_grid_stay_there() -> None:
    graph = pair()
    weights = graph.constants[graph.by_name["y"].inputs[1]]
    weights[:] = np.rint(weights * 3) / 4
    assert equalize(graph).run(graph).ops == graph.ops


@pytest.mark.parametrize("activation", [RELU, Activation(slope=(0.2,)), Activation(low=0.0)])
def test_dead_channels_keep_factors_like_the_others(activation: Activation) -> None:
    graph = pair(activation=activation)
    for parameter in graph.by_name["a"].inputs[1:]:
        graph.constants[parameter][2] = 0
    graph.constants[graph.by_name["y"].inputs[1]][:, 4] = 0
    found = equalize(graph)
    after = found.run(graph)
    assert_same_function(graph, after, 1e-4)
    assert all(np.isfinite(data).all() for data in after.constants.values())
    for parameter in graph.by_name["a"].inputs[1:]:
        graph.constants[parameter][:] = 0
    nothing = equalize(graph)
    assert_same_function(graph, nothing.run(graph))


def test_weights_of_two_layers_are_rescaled_for_each() -> None:
    net = Net(x=(1, 4, 6, 6))
    a = uneven(net, "a", "x", 4, activation=RELU)
    shared = net._ops[-1].inputs[1:]
    fields = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
    b = net.add("b", type(net._ops[-1]), a, *shared, activation=RELU, **fields)
    graph = net.graph(net.conv("y", b, 2))
    after = equalize(graph).run(graph)
    assert after.by_name["a"].inputs[1] != after.by_name["b"].inputs[1]
    assert_same_function(graph, after, 1e-4)


def test_tensors_without_statistics_of_each_channel_are_untouched() -> None:
    """5000 features are calibrated as one channel."""
    net = Net(x=(1, 2))
    a = net.add("a", MatMul, "x", net.random(2, 5000), net.random(5000), activation=RELU)
    graph = net.graph(net.add("y", MatMul, a, net.random(5000, 2)))
    assert equalize(graph).run(graph).ops == graph.ops


def test_domains_reach_through_pools_sums_and_concats() -> None:
    graph = skip_net()
    domains = ChannelDomains(graph).domains
    by_value = {value: domain for domain in domains for value in domain.values}
    assert by_value["a"] is by_value["small"]
    assert by_value["left"] is by_value["u"] is by_value["total"]
    assert {op.name for op in by_value["u"].writers} == {"u", "left"}
    readings = sorted((reading.op.name, reading.first) for reading in by_value["a"].readings)
    at = [("d", 0), ("d", 12), ("y", 0), ("y", 12), ("z", 0), ("z", 12)]
    assert readings == sorted([("b", 0), *at])
    assert ("d", 6) in [(reading.op.name, reading.first) for reading in by_value["u"].readings]
    beside = {domains[index].values for index in by_value["a"].neighbours}
    assert by_value["u"].values in beside
    assert not by_value["x"].is_free
    assert not by_value["y"].is_free
