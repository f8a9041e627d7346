"""FIFO depths: enough under every order of events, a row less never is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from qcompile.hdl_options import FifoPolicy
from qcompile.hw.schedule import Edge, edges, streams
from qcompile.hw.stage import Flow
from qcompile.passes.size_fifos import SizeFifos, minimum_pixels
from tests.hw.flows import Net, image, unet
from tests.hw.tokens import Tokens

ORDERS = ("eager", "lazy", "random")


def residual(groups: int) -> Flow:
    """Two blocks of two convolutions and a sum."""
    net = Net(x=image(8, 8, groups))
    value = "x"
    for k in range(2):
        branch = net.conv(f"b{k}", net.conv(f"a{k}", value, groups=groups), groups=groups)
        value = net.add(f"s{k}", branch, value)
    return net.flow(value)


def projected(groups: int) -> Flow:
    """A residual block that halves the map, with a 1x1 convolution in the short branch."""
    net = Net(x=image(8, 8, groups))
    wide = 2 * groups
    long = net.conv("b", net.conv("a", "x", stride=2, groups=wide), groups=wide)
    return net.flow(net.add("s", long, net.conv("p", "x", 1, stride=2, groups=wide)))


def dilated(groups: int) -> Flow:
    """Parallel dilated convolutions and a 1x1, side by side in one concat."""
    net = Net(x=image(10, 10, groups))
    value = net.point("v", "x")
    rates = [net.conv(f"d{d}", value, dilation=d, groups=groups) for d in (1, 2, 3)]
    return net.flow(net.concat("c", *rates, net.conv("one", value, 1, groups=groups)))


def pyramid(groups: int) -> Flow:
    """Pools of several sizes, up-sampled, beside the map itself."""
    net = Net(x=image(8, 8, groups))
    value = net.conv("v", "x", groups=groups)
    parts = [value]
    for factor in (2, 4, 8):
        small = net.conv(f"q{factor}", net.pool(f"p{factor}", value, factor), 1, groups=groups)
        parts.append(net.up(f"u{factor}", small, factor))
    return net.flow(net.concat("c", *parts))


def gated(groups: int) -> Flow:
    """A map times a gate that is made from all of it."""
    net = Net(x=image(6, 6, groups))
    value = net.conv("v", "x", groups=groups)
    gate = net.conv("k", net.mean("m", value), 1, groups=groups)
    return net.flow(net.conv("o", net.gate("g", value, gate), groups=groups))


def nested(groups: int) -> Flow:
    """Skips inside skips (U-Net++), with two outputs."""
    net = Net(x=image(16, 16, groups))
    x00 = net.conv("x00", "x", groups=groups)
    x10 = net.conv("x10", net.pool("p0", x00), groups=groups)
    x20 = net.conv("x20", net.pool("p1", x10), groups=groups)
    x01 = net.conv("x01", net.concat("c01", x00, net.up("u10", x10)), groups=groups)
    x11 = net.conv("x11", net.concat("c11", x10, net.up("u20", x20)), groups=groups)
    x02 = net.conv("x02", net.concat("c02", x00, x01, net.up("u11", x11)), groups=groups)
    return net.flow(x01, x02)


def twice(groups: int) -> Flow:
    """A value that one operator reads twice."""
    net = Net(x=image(4, 4, groups))
    return net.flow(net.concat("c", "x", "x"), net.add("a", "x", "x"))


def heads(groups: int) -> Flow:
    """Outputs in the middle, one of them a part of the map whose rest is dropped."""
    net = Net(x=image(8, 8, groups))
    a = net.conv("a", "x", groups=groups)
    total = net.add("s", a, net.conv("b", a, 5, groups=groups))
    return net.flow(a, total, net.crop("part", a, 2, 4))


def butterfly(groups: int) -> Flow:
    """Two sums of the same two branches, crosswise: no value dominates them."""
    net = Net(x=image(8, 8, groups))
    a, b = net.conv("a", "x", groups=groups), net.conv("b", "x", 5, groups=groups)
    s = net.add("s", a, b)
    t = net.add("t", net.conv("a2", a, groups=groups), b)
    return net.flow(net.add("w", s, net.conv("t2", t, groups=groups)))


def two_inputs(groups: int) -> Flow:
    net = Net(x=image(8, 8, groups), y=image(8, 8, groups))
    a, b = net.conv("a", "x", groups=groups), net.conv("b", "y", groups=groups)
    return net.flow(net.concat("t", net.conv("c", net.add("s", a, b), groups=groups), a, b))


def bursts(groups: int) -> Flow:
    """A whole map comes out of one pixel and meets itself again behind a window."""
    net = Net(x=image(4, 4, groups))
    wide = net.up("u", net.conv("k", net.mean("m", "x"), 1, groups=groups), 4)
    return net.flow(net.add("s", wide, net.conv("c", wide, groups=groups), "x"))


NETWORKS: Mapping[str, Callable[[int], Flow]] = {
    "unet1": lambda groups: unet(8, 1, groups),
    "unet2": lambda groups: unet(16, 2, groups),
    "residual": residual,
    "projected": projected,
    "dilated": dilated,
    "pyramid": pyramid,
    "gated": gated,
    "nested": nested,
    "twice": twice,
    "heads": heads,
    "butterfly": butterfly,
    "two_inputs": two_inputs,
    "bursts": bursts,
}


def beats(flow: Flow) -> dict[Edge, int]:
    """The proven bound of every edge, without margin."""
    known = streams(flow)
    return {
        edge: pixels * known[edge.value].groups for edge, pixels in minimum_pixels(flow).items()
    }


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_is_enough_in_every_order(name: str, groups: int) -> None:
    flow = NETWORKS[name](groups)
    plan = SizeFifos(FifoPolicy.MINIMUM).run(flow)
    depths = {edge: size.depth for edge, size in plan.sizes.items()}
    for order in ORDERS:
        assert Tokens(flow, beats(flow), frames=3).run(order)
        assert Tokens(flow, depths, frames=3).run(order)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pyramid"])
def test_a_row_less_stops_for_ever(name: str, groups: int) -> None:
    flow = NETWORKS[name](groups)
    known, least = streams(flow), beats(flow)
    tested = 0
    for edge, depth in least.items():
        row = known[edge.value].width * known[edge.value].groups
        if depth > row:
            tested += 1
            for order in ORDERS:
                assert not Tokens(flow, {**least, edge: depth - row}).run(order), edge
    assert tested or name == "twice"


@pytest.mark.parametrize("name", ["unet1", "unet2", "residual", "gated", "nested"])
def test_the_bound_of_a_plain_skip_is_exact_to_a_pixel_or_two(name: str) -> None:
    flow = NETWORKS[name](3)
    known, least = streams(flow), beats(flow)
    writers = {stage.op.name: stage for stage in flow.stages}
    for edge, depth in least.items():
        if depth and not edge.value.startswith("u"):
            shallow = {**least, edge: depth - 2 * known[edge.value].groups}
            assert not Tokens(flow, shallow).run("eager"), (edge, writers)


def random_flow(rng: np.random.Generator) -> Flow:
    """Any operators over any of the values so far, joined where sizes agree."""
    net = Net(x=image(8, 8, int(rng.integers(1, 3))))
    values = ["x"]
    for index in range(int(rng.integers(6, 14))):
        value = str(rng.choice(values[-4:]))
        kind, name = int(rng.integers(0, 9)), f"v{index}"
        here = net.streams[value]
        alike = [
            other
            for other in values
            if (net.streams[other].height, net.streams[other].groups) == (here.height, here.groups)
        ]
        other = str(rng.choice(alike))
        if kind <= 1:
            groups = int(rng.choice([1, 2, here.groups]))
            values.append(net.conv(name, value, int(rng.choice([1, 3, 5])), groups=groups))
        elif kind == 2 and here.height % 2 == 0:
            values.append(net.pool(name, value))
        elif kind == 3 and here.height < 8:
            values.append(net.up(name, value))
        elif kind == 4:
            values.append(net.point(name, value))
        elif kind == 5 and here.height > 1:
            values.append(net.gate(name, value, net.mean(f"m{index}", other)))
        elif kind == 6 and here.groups <= 3:
            values.append(net.concat(name, value, other))
        else:
            values.append(net.add(name, value, other))
    read = {value for stage in net.stages for value in stage.values}
    return net.flow(*(value for value in values if value not in read))


@pytest.mark.parametrize("seed", range(60))
def test_the_bound_is_enough_for_random_networks(seed: int) -> None:
    flow = random_flow(np.random.default_rng(seed))
    for order in ORDERS[seed % 3 :: 3]:
        assert Tokens(flow, beats(flow), frames=3).run(order, seed)


def test_plain_chains_need_nothing() -> None:
    net = Net(x=image(16, 16))
    flow = net.flow(net.up("u", net.pool("p", net.conv("c", "x"))))
    assert set(minimum_pixels(flow).values()) == {0}
    plan = SizeFifos(FifoPolicy.MINIMUM).run(flow)
    assert set(plan.sizes) == set(edges(flow))
    assert plan.bits == 0


def test_margin_is_below_a_row() -> None:
    for build in NETWORKS.values():
        flow = build(3)
        known = streams(flow)
        for edge, size in SizeFifos().run(flow).sizes.items():
            stream = known[edge.value]
            assert size.margin < stream.width * stream.groups
            assert size.margin <= 2 * stream.groups
            assert size.depth >= size.minimum + size.margin


def test_bits_are_those_of_all_fifos() -> None:
    flow = unet(16, 2, 3)
    plan = SizeFifos().run(flow)
    assert plan.bits == sum(size.depth for size in plan.sizes.values()) * 6


def test_large_networks_take_seconds() -> None:
    flow = unet(512, 4)
    start = time.perf_counter()
    least = minimum_pixels(flow)
    assert time.perf_counter() - start < 30
    rows = [least[Edge(f"b{level}", f"c{level}", 0)] / (512 >> level) for level in range(4)]
    assert [int(row) for row in rows] == [103, 47, 19, 5]
