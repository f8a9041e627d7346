"""Which widths the rules give to the ends of a network, to results, and to terms of sums."""

from __future__ import annotations

from typing import Any

import pytest

from qcompile.graph import Graph
from qcompile.ops import RELU, Add, ArgMax, Concat, MaxPool, Rescale, Sigmoid
from qcompile.options import CompileOptions, LayerOverride
from qcompile.passes.assign_formats import assign_formats
from qcompile.plan import Plan, Quantizer
from tests.passes.nets import Net
from tests.passes.pruned_nets import window


def network() -> Graph:
    """Pixels through a pool, a residual block, and two heads: scores, and a class map."""
    net = Net(x=(1, 2, 8, 8))
    bright = net.add("bright", Rescale, "x", activation=RELU)
    small = net.add("small", MaxPool, bright, **window(2))
    first = net.conv("first", small, 4, activation=RELU)
    left = net.conv("left", first, 4)
    right = net.conv("right", first, 4)
    total = net.add("total", Add, left, right, activation=RELU)
    shared = net.conv("shared", total, 4)
    again = net.add("again", Add, shared, total)
    joined = net.add("joined", Concat, shared, again, axis=1)
    scores = net.conv("scores", joined, 3)
    more = net.conv("more", joined, 2)
    return net.graph(
        net.add("classes", ArgMax, scores, axis=1, keepdims=True, last=False),
        net.add("probability", Sigmoid, more),
    )


def plan(graph: Graph | None = None, **fields: Any) -> Plan:
    return assign_formats(graph or network(), CompileOptions(**fields))


def outputs(found: Plan) -> dict[str, int]:
    return {name: layer.output.bits for name, layer in found.layers.items()}


def test_results_have_16_bits_and_terms_8() -> None:
    found = plan(abits="6", wbits="4")
    bits = outputs(found)
    assert bits.pop("classes") in (6, 8, 16)  # has no codes
    assert bits == {
        "bright": 8,
        "small": 8,
        "first": 6,
        "left": 8,  # terms of the sum
        "right": 8,
        "total": 6,
        "shared": 6,  # a term, but a Concat reads it as well
        "again": 6,
        "joined": 6,
        "scores": 16,  # only the largest one counts
        "more": 8,  # a table reads it
        "probability": 8,
    }
    weights = {n: layer.weights.bits for n, layer in found.layers.items() if layer.weights}
    inner = dict.fromkeys(("left", "right", "shared"), 4)
    assert weights == inner | dict.fromkeys(("first", "scores", "more"), 8)


def test_pixels_that_only_have_a_scale_stay_8_bits_before_the_first_layer() -> None:
    assert plan(abits="16", input_kind="uint8").inputs["x"].output.bits == 8
    assert plan(abits="16", input_kind="float32").inputs["x"].output.bits == 16
    assert outputs(plan(abits="16"))["bright"] == 16


def test_wider_activations_stay_what_they_are() -> None:
    assert {bits for name, bits in outputs(plan(abits="16")).items() if name != "small"} == {16}
    assert set(outputs(plan(abits="32")).values()) == {32}


def test_a_sum_that_is_the_result() -> None:
    net = Net(x=(1, 2, 6, 6))
    a = net.conv("a", "x", 3)
    graph = net.graph(net.add("y", Add, net.conv("b", a, 3), net.conv("c", a, 3)))
    assert outputs(plan(graph, abits="4")) == {"a": 4, "b": 16, "c": 16, "y": 16}


def test_without_weights_everything_is_an_end() -> None:
    net = Net(x=(1, 2, 6, 6))
    small = net.add("small", MaxPool, "x", **window(2))
    graph = net.graph(net.add("y", Add, small, small, activation=RELU))
    assert outputs(plan(graph, abits="4", input_kind="float32")) == {"small": 8, "y": 16}


INNER = ("first", "left", "right", "total", "shared", "again", "joined")


@pytest.mark.parametrize(
    "fields",
    [
        {"quantizer": "dorefa", "wbits": "4", "abits": "4"},
        {"quantizer": "fixed", "wbits": "4", "abits": "Q2.3"},
        {"quantizer": "fxp-paper", "wbits": "Q0.4", "abits": "Q6.0"},
        {"quantizer": "fxp-em", "wbits": "Q0.4", "abits": "Q6.0"},
    ],
)
def test_formats_by_name_are_those_of_all_inner_values(fields: dict[str, Any]) -> None:
    found = plan(**fields)
    assert len({found.layers[name].output for name in INNER}) == 1
    chosen = found.layers["left"].output
    assert chosen.q is not None or chosen.quantizer is Quantizer.DOREFA
    assert found.layers["scores"].output.bits == 16
    assert found.layers["bright"].output.q is None


def test_a_layer_of_its_own_width_keeps_it() -> None:
    layers = tuple(LayerOverride(name, abits="5") for name in ("left", "bright", "scores"))
    bits = outputs(plan(abits="6", layers=layers))
    assert (bits["left"], bits["right"], bits["bright"], bits["scores"]) == (5, 8, 5, 5)


def test_terms_are_as_wide_as_is_asked_for() -> None:
    assert outputs(plan(abits="16"))["left"] == 16
    assert outputs(plan(abits="ternary"))["left"] == 8
    assert outputs(plan(abits="ternary"))["first"] == 2
