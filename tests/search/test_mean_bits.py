from __future__ import annotations

import numpy as np
import pytest

from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.options import CompileOptions, LayerOverride
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.calibrate import Calibration
from qcompile.plan import Plan, Quantizer
from qcompile.quantization import Quantization
from qcompile.search.mean_bits import mean_bits_plan
from tests.passes.nets import Net


def network() -> Graph:
    net = Net(x=(1, 1, 12, 12))
    first = net.conv("first", "x", 4)
    wide = net.conv("wide", first, 16)
    narrow = net.conv("narrow", wide, 4)
    return net.graph(net.conv("last", narrow, 2, kernel=1, pad=0))


SIZES = {"first": 36, "wide": 576, "narrow": 576, "last": 8}


def planned(options: CompileOptions) -> Plan:
    graph = network()
    generator = np.random.default_rng(0)
    feeds = [{"x": generator.integers(0, 256, (1, 1, 12, 12), np.uint8)} for _ in range(3)]
    specs = {"x": InputSpec(InputKind.UINT8)}
    quantization = Quantization(graph, Calibration(), specs, options, feeds)
    return mean_bits_plan(quantization, assign_formats(graph, options), feeds)


def bits(plan: Plan) -> dict[str, int]:
    return {name: layer.weights.bits for name, layer in plan.layers.items() if layer.weights}


def mean(plan: Plan) -> float:
    return sum(SIZES[name] * width for name, width in bits(plan).items()) / sum(SIZES.values())


@pytest.mark.parametrize("wanted", [2.5, 3.0, 4.5, 8.0])
def test_the_mean_is_met_and_used(wanted: float) -> None:
    plan = planned(CompileOptions(mean_wbits=wanted, abits="6"))
    assert wanted - 0.5 < mean(plan) <= wanted
    assert bits(plan)["first"] == bits(plan)["last"] == 8
    assert plan.layers["wide"].output.bits == 6


def test_two_bits_are_ternary_and_fixed_point_where_scales_are_powers_of_two() -> None:
    plan = planned(CompileOptions(mean_wbits=2.3))
    assert plan.layers["wide"].weights is not None
    assert plan.layers["wide"].weights.quantizer is Quantizer.TERNARY
    plan = planned(CompileOptions(mean_wbits=2.3, quantizer="fixed"))
    assert {layer.weights.quantizer for layer in plan.layers.values() if layer.weights} == {
        Quantizer.FIXED
    }


def test_overrides_and_the_widest_width_hold() -> None:
    plan = planned(
        CompileOptions(mean_wbits=4, wbits="5", layers=(LayerOverride("wide", wbits="3"),))
    )
    assert bits(plan)["wide"] == 3
    assert bits(plan)["narrow"] <= 5
    assert mean(plan) <= 4


def test_first_and_last_layer_join_in_when_asked() -> None:
    assert bits(planned(CompileOptions(mean_wbits=2.0, first_last_bits="2"))) == dict.fromkeys(
        SIZES, 2
    )


def test_a_mean_out_of_reach_says_what_is_possible() -> None:
    with pytest.raises(UsageError, match=r"at least 2\.221;"):
        planned(CompileOptions(mean_wbits=2.1))


@pytest.mark.parametrize(
    "fields",
    [
        {"mean_wbits": 1.9},
        {"mean_wbits": 8.1},
        {"mean_wbits": float("nan")},
        {"mean_wbits": 3.0, "quantizer": "ternary"},
        {"mean_wbits": 3.0, "wbits": "2"},
        {"mean_wbits": 3.0, "wbits": "16"},
        {"mean_wbits": 3.0, "wbits": "binary"},
    ],
)
def test_wrong_values(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--mean-wbits"):
        CompileOptions(**fields)  # type: ignore[arg-type]
