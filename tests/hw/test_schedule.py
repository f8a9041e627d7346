"""The cycle models: by hand on small flows, against each other, and with full FIFOs."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from qcompile.hdl_options import FifoPolicy
from qcompile.hw.pressure import Stopped, predict, slowdown
from qcompile.hw.schedule import (
    Edge,
    arrivals,
    edges,
    frame_cycles,
    late_schedule,
    schedule,
    streams,
)
from qcompile.hw.stage import Flow
from qcompile.hw.stage_timing import FRAMES, port_rules, timing
from qcompile.passes.size_fifos import SizeFifos, minimum_pixels
from tests.hw.flows import Net, image, unet
from tests.passes.test_size_fifos import NETWORKS


def depths(flow: Flow, policy: FifoPolicy) -> dict[Edge, int]:
    return {edge: size.depth for edge, size in SizeFifos(policy).run(flow).sizes.items()}


def test_a_convolution_by_hand() -> None:
    net = Net(x=image(8, 8))
    flow = net.flow(net.conv("c", "x", cost=9))
    assert frame_cycles(flow) == 9 * 64
    (stage,) = flow.stages
    own = timing(stage)
    assert (own.interval, own.gap, own.leads, own.tail) == (9, 0, (6 + 8,), 3)
    found = schedule(flow)
    # Pixel (0, 0) needs one row and two pixels, which arrive every 9 cycles.
    first = 9 * 10 + 14 + 3
    assert found.emitted["c"][0] == first
    # The first pixel of a row needs pixel 1 of the next row, the last one needs nothing newer than
    # the one before: nine cycles each, from the first to the last.
    assert found.emitted["c"][63] == first + 9 * 63
    assert found.interval == 9 * 64
    assert found.latency == first + 9 * 63


def test_a_burst_waits_in_front_of_a_slow_reader() -> None:
    """A pool sends a row in half the time, a convolution behind it needs all of it."""
    net = Net(x=image(8, 8))
    small = net.pool("p", "x")
    flow = net.flow(net.conv("c", small, 1, cost=8))
    assert frame_cycles(flow) == 8 * 16
    assert slowdown(flow, depths(flow, FifoPolicy.RATE)) == 1.0


def scalar(flow: Flow) -> dict[str, list[int]]:
    """The early schedule, event by event."""
    known, period = streams(flow), frame_cycles(flow)
    times = {value: arrivals(known[value], period).tolist() for value in flow.inputs}
    for stage in flow.stages:
        own = timing(stage)
        gathered: list[int] = []
        taken: list[list[int]] = [[] for _ in stage.values]
        needs = [rule.needs(FRAMES) for rule in port_rules(stage)]
        rooms = [own.room(port) for port in range(len(stage.values))]
        for pixel in range(FRAMES * own.pixels):
            now = 0
            if pixel:
                gap = own.gap if pixel % own.pixels == 0 else 0
                now = gathered[-1] + own.interval + gap
            for port, value in enumerate(stage.values):
                while len(taken[port]) < needs[port][pixel]:
                    index = len(taken[port])
                    when = times[value][index]
                    if index:
                        when = max(when, taken[port][-1] + own.beats[port])
                    if rooms[port][index] and not own.joins(port):
                        free = gathered[rooms[port][index] - 1] + own.releases[port]
                        when = max(when, free + own.beats[port] - 1)
                    taken[port].append(when)
                if needs[port][pixel]:
                    now = max(now, taken[port][needs[port][pixel] - 1] + own.leads[port])
            gathered.append(now)
        times[stage.op.output] = [when + own.tail for when in gathered]
    return times


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_equal_single_events(name: str) -> None:
    flow = NETWORKS[name](2)
    found = schedule(flow)
    for value, times in scalar(flow).items():
        assert found.emitted[value].tolist() == times, value


@pytest.mark.parametrize("name", NETWORKS)
def test_late_is_a_schedule_too(name: str) -> None:
    flow = NETWORKS[name](2)
    early = schedule(flow)
    late = late_schedule(flow, early)
    assert late.interval == early.interval
    for stage in flow.stages:
        output, own = late.emitted[stage.op.output], timing(stage)
        assert (output >= early.emitted[stage.op.output]).all()
        for rule, value, lead in zip(own.rules, stage.values, own.leads, strict=True):
            needs = rule.needs(FRAMES)
            assert (late.emitted[value][needs - 1] + lead + own.tail <= output).all()


@pytest.mark.parametrize("cost", [1, 3, 9])
@pytest.mark.parametrize("groups", [1, 2])
def test_no_fifo_slows_a_unet_down(groups: int, cost: int) -> None:
    flow = unet(16, 2, groups, cost)
    assert slowdown(flow, depths(flow, FifoPolicy.RATE)) == 1.0


@pytest.mark.parametrize("name", NETWORKS)
def test_no_fifo_slows_a_network_down(name: str) -> None:
    flow = NETWORKS[name](2)
    assert slowdown(flow, depths(flow, FifoPolicy.RATE)) <= 1.01


@pytest.mark.parametrize("name", NETWORKS)
def test_minimum_is_slower_at_most(name: str) -> None:
    flow = NETWORKS[name](2)
    least, full = (
        predict(flow, depths(flow, policy)) for policy in (FifoPolicy.MINIMUM, FifoPolicy.RATE)
    )
    assert least.interval >= full.interval
    # A FIFO where there was none costs a cycle or three.
    assert least.latency >= full.latency - 3 * len(flow.stages)


@pytest.mark.parametrize("build", [lambda: unet(16, 2), lambda: NETWORKS["residual"](2)])
def test_too_shallow_a_fifo_is_named(build: Callable[[], Flow]) -> None:
    flow = build()
    known = streams(flow)
    least = depths(flow, FifoPolicy.MINIMUM)
    edge = max(least, key=lambda edge: least[edge])
    stream = known[edge.value]
    # The model lets pixels overtake beats by a few, so two rows.
    least[edge] -= 2 * stream.width * stream.groups
    with pytest.raises(Stopped) as caught:
        predict(flow, least)
    assert edge in caught.value.full


def test_every_edge_has_its_times() -> None:
    flow = unet(16, 2)
    found = schedule(flow)
    assert set(found.emitted) == set(streams(flow))
    assert set(found.rooms) == {edge for edge in edges(flow) if edge.reader}
    start, end = found.spans["out"]
    assert 0 < start < end == found.latency


def test_a_slower_source_sets_the_rate() -> None:
    flow = unet(16, 1)
    least = depths(flow, FifoPolicy.RATE)
    period = 3 * frame_cycles(flow)
    assert schedule(flow, period).interval == period
    assert predict(flow, least, period).interval == period


def test_large_networks_take_seconds() -> None:
    flow = unet(512, 4)
    start = time.perf_counter()
    found = schedule(flow)
    late = late_schedule(flow, found)
    assert time.perf_counter() - start < 60
    assert found.interval == late.interval == 2 * 512 * 512


def test_margins_hold_what_is_on_its_way() -> None:
    """The deepest FIFO is hardly deeper at the full rate than it must be."""
    flow = unet(64, 3)
    known = streams(flow)
    sizes = SizeFifos().run(flow).sizes
    for edge, pixels in minimum_pixels(flow).items():
        if pixels > 1000:
            assert sizes[edge].depth <= 1.1 * pixels * known[edge.value].groups
    assert np.isclose(slowdown(flow, {e: s.depth for e, s in sizes.items()}), 1.0)
