from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import Add, Concat, MaxPool, NearestResize
from qcompile.options import RangeMethod
from qcompile.passes.activation_ranges import Member, choose_scale
from qcompile.passes.calibrate import calibrate
from qcompile.passes.fake_quantize import quantized
from qcompile.plan import Format, Quantizer
from qcompile.search.activations import output_errors
from qcompile.search.covariances import input_covariances
from qcompile.search.readers import readers
from qcompile.sim.executor import Executor
from qcompile.types import Array, CodebookKind
from tests.passes.nets import Net

FORMATS = tuple(Format(bits, Quantizer.SCALED) for bits in (3, 4, 6, 8))


def feeds(graph: Graph) -> list[dict[str, Array]]:
    generator = np.random.default_rng(3)
    shape = graph.types["x"].shape
    return [{"x": generator.normal(size=shape).astype("float32")} for _ in range(6)]


def skip(output: str = "c") -> Graph:
    """'a' is read by a convolution and, behind a pool and a concatenation, by another."""
    net = Net(x=(1, 3, 16, 16))
    a = net.conv("a", "x", 4)
    b = net.conv("b", a, 6)
    joined = net.add("joined", Concat, b, a, axis=1)
    net.conv("c", joined, 5)
    return net.graph(output)


def test_readers_are_found_behind_movement_with_their_channels() -> None:
    graph = skip()
    found = [(reader.op and reader.op.name, reader.channels) for reader in readers(graph, "a")]
    assert found == [("b", slice(0, 4)), ("c", slice(6, 10))]
    assert [reader.op for reader in readers(graph, "c")] == [None]


@pytest.mark.parametrize("transposed", [False, True])
def test_the_error_is_that_of_the_sums(transposed: bool) -> None:
    net = Net(x=(1, 3, 24, 24))
    a = net.conv("a", "x", 8)
    graph = net.graph(net.up("b", a, 5) if transposed else net.conv("b", a, 5))
    inputs = feeds(graph)
    calibration = calibrate(graph, inputs)
    errors = output_errors(
        graph, calibration, input_covariances(graph, inputs), {"a": FORMATS}, RangeMethod.MSE
    )["a"]
    statistics = calibration.values["a"]
    cut = dataclasses.replace(graph, inputs=("a",), ops=(graph.by_name["b"],))
    real = [Executor(graph).run(feed, taps=["a"]) for feed in inputs]
    for chosen in FORMATS:
        element = chosen.element(signed=True)
        member = Member(statistics, element, CodebookKind.UNIFORM)
        scale = choose_scale([member], RangeMethod.MSE, False)
        coarse = [
            Executor(cut).run({"a": quantized(run["a"], scale, element)})["b"] for run in real
        ]
        noise = np.var(np.subtract(coarse, [run["b"] for run in real]))
        signal = np.array([run["b"] for run in real]).var(axis=(0, 1, 3, 4)).mean()
        assert errors[chosen] == pytest.approx(noise / signal, rel=0.25)


def test_a_tensor_read_by_more_matters_more() -> None:
    errors = []
    for output in ("b", "c"):
        graph = skip(output)
        inputs = feeds(graph)
        covariances = input_covariances(graph, inputs)
        calibration = calibrate(graph, inputs)
        formats = {"a": FORMATS}
        found = output_errors(graph, calibration, covariances, formats, RangeMethod.MSE)
        errors.append(found["a"])
    assert all(errors[1][chosen] > 1.001 * errors[0][chosen] > 0 for chosen in FORMATS)


def test_sums_without_weights_and_outputs_count_too() -> None:
    net = Net(x=(1, 3, 16, 16))
    a = net.conv("a", "x", 4)
    pooled = net.add(
        "pooled",
        MaxPool,
        a,
        kernel=(2, 2),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    b = net.conv("b", pooled, 4)
    total = net.add("total", Add, b, pooled)
    graph = net.graph(
        net.add("end", NearestResize, total, sources=(tuple(range(8)), tuple(range(8))))
    )
    inputs = feeds(graph)
    errors = output_errors(
        graph,
        calibrate(graph, inputs),
        input_covariances(graph, inputs),
        {"a": FORMATS, "b": FORMATS, "total": FORMATS},
        RangeMethod.MSE,
    )
    assert all(0 < found[FORMATS[-1]] < found[FORMATS[0]] for found in errors.values())
