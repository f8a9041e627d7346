from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from qcompile.graph import Graph, Op
from qcompile.ops import MatMul
from qcompile.passes.weight_quantizers import quantize_rows
from qcompile.passes.weight_rows import from_rows, to_rows
from qcompile.plan import Format, Quantizer
from qcompile.search import covariances as module
from qcompile.search.covariances import input_covariances
from qcompile.search.sensitivity import weight_errors
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.passes.nets import Net

FORMATS = tuple(Format(bits, Quantizer.SCALED) for bits in (3, 4, 6, 8))


def feeds(graph: Graph, count: int = 4) -> list[dict[str, Array]]:
    """White noise: no weight can make up for the error of another."""
    generator = np.random.default_rng(3)
    return [
        {name: generator.normal(size=graph.types[name].shape).astype("float32")}
        for _ in range(count)
        for name in graph.inputs
    ]


def conv(**fields: Any) -> Graph:
    net = Net(x=(1, 6, 24, 24))
    return net.graph(net.conv("layer", "x", 8, **fields))


def up() -> Graph:
    net = Net(x=(1, 6, 24, 24))
    return net.graph(net.up("layer", "x", 4, groups=2))


def matmul() -> Graph:
    net = Net(x=(1, 300, 20))
    return net.graph(net.add("layer", MatMul, "x", net.random(20, 7), net.random(7)))


GRAPHS = {
    "conv": conv,
    "strided": lambda: conv(strides=(2, 2)),
    "dilated": lambda: conv(dilations=(2, 2)),
    "grouped": lambda: conv(groups=2),
    "up": up,
    "matmul": matmul,
}


@pytest.mark.parametrize("graph", [make() for make in GRAPHS.values()], ids=GRAPHS)
def test_without_correlation_the_error_is_that_of_plain_rounding(graph: Graph) -> None:
    op = graph.by_name["layer"]
    inputs = feeds(graph)
    errors = weight_errors(graph, input_covariances(graph, inputs), {"layer": FORMATS})["layer"]
    for chosen in FORMATS:
        coarse = rounded_run(graph, op, chosen, inputs)
        real = [Executor(graph).run(feed)["layer"] for feed in inputs]
        axis = -1 if isinstance(op, MatMul) else 1
        measured = variance(np.subtract(coarse, real), axis) / variance(np.array(real), axis)
        assert errors[chosen] == pytest.approx(measured, rel=0.15)


def rounded_run(
    graph: Graph, op: Op, chosen: Format, inputs: list[dict[str, Array]]
) -> list[Array]:
    """What the layer computes with every weight rounded by itself."""
    weights = graph.constants[op.inputs[1]]
    rounded = quantize_rows(to_rows(op, weights), chosen)
    rows = (rounded.codes * rounded.scales[:, None]).astype("float32")
    changed = {**graph.constants, op.inputs[1]: from_rows(op, rows, weights.shape)}
    other = dataclasses.replace(graph, constants=changed)
    return [Executor(other).run(feed)["layer"] for feed in inputs]


def variance(data: Array, axis: int) -> float:
    """Without the mean of each channel, which biases take up."""
    rows = np.moveaxis(data, axis if axis < 0 else axis + 1, 0).reshape(data.shape[axis], -1)
    if axis > 0:
        rows = np.moveaxis(data, 2, 0).reshape(data.shape[2], -1)
    return float(rows.var(axis=1).sum())


def test_correlated_inputs_forgive_rounding() -> None:
    graph = conv()
    noise = feeds(graph)
    smooth = [{"x": np.repeat(feed["x"][:, :1], 6, axis=1)} for feed in noise]
    plain, forgiven = (
        weight_errors(graph, input_covariances(graph, data), {"layer": FORMATS})["layer"]
        for data in (noise, smooth)
    )
    assert all(forgiven[chosen] < 0.5 * plain[chosen] for chosen in FORMATS)


def test_rounding_to_nearest_undoes_nothing() -> None:
    graph = conv()
    op = graph.by_name["layer"]
    smooth = [{"x": np.repeat(feed["x"][:, :1] + 1, 6, axis=1)} for feed in feeds(graph)]
    covariances = input_covariances(graph, smooth)
    errors = weight_errors(graph, covariances, {"layer": FORMATS}, compensated=False)["layer"]
    for chosen in FORMATS:
        coarse = rounded_run(graph, op, chosen, smooth)
        real = [Executor(graph).run(feed)["layer"] for feed in smooth]
        # A mean error counts, too: no bias takes it up.
        lost = np.square(np.subtract(coarse, real)).mean(axis=(0, 1, 3, 4)).sum()
        measured = lost / variance(np.array(real), 1)
        assert errors[chosen] == pytest.approx(measured, rel=0.2)


def test_many_columns_are_taken_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = conv()
    inputs = feeds(graph)
    whole = weight_errors(graph, input_covariances(graph, inputs), {"layer": FORMATS})["layer"]
    monkeypatch.setattr(module, "LARGEST_BLOCK", 20)
    parted = input_covariances(graph, inputs)
    assert [block.shape for block in parted["layer"].blocks] == [(1, 18, 18)] * 3
    errors = weight_errors(graph, parted, {"layer": FORMATS})["layer"]
    assert all(errors[chosen] == pytest.approx(whole[chosen], rel=0.1) for chosen in FORMATS)


def test_a_dead_input_has_finite_errors() -> None:
    graph = conv()
    silent = [{"x": np.zeros((1, 6, 24, 24), "float32")}]
    errors = weight_errors(graph, input_covariances(graph, silent), {"layer": FORMATS})["layer"]
    assert all(np.isfinite(error) for error in errors.values())
