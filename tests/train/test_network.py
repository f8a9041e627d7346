"""A network in training and what the compiler makes of it: the same integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qcompile import ops
from qcompile.boundary import InputKind
from qcompile.errors import QCompileError, UsageError
from qcompile.feeds import input_specs
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.pipeline import simplify_passes
from qcompile.sim.executor import Executor
from qcompile.train.graph_module import GraphModule
from qcompile.train.model_file import model_files
from qcompile.train.network import TrainedNetwork, make_trainable
from qcompile.train.reals import REAL_OPERATORS
from qcompile.types import Array
from tests.properties.compiled import example
from tests.train.networks import (
    as_tensors,
    both_feeds,
    is_all_integer,
    random_training,
    shake,
)

FLOAT_TOLERANCE = 2e-4
SEEDS = range(24)


def test_every_operator_of_float_graphs() -> None:
    """Quantized graphs have the same operators; lookups and boundaries exist after lowering."""
    lowered = {ops.Lookup, ops.Quantize, ops.Dequantize}
    assert set(REAL_OPERATORS) == {*ops.OPERATORS, *ops.ANNOTATIONS} - lowered


@pytest.mark.parametrize("seed", SEEDS)
def test_floats(seed: int, tmp_path: Path) -> None:
    """Without formats the module is the float network."""
    found = example(seed, tmp_path, benign=True)
    module = GraphModule(found.simplified)
    executor = Executor(found.simplified)
    for feed in found.float_feeds():
        expected = executor.run(feed)
        values = module(as_tensors(feed))
        for name, data in expected.items():
            limit = FLOAT_TOLERANCE * max(1.0, float(np.abs(data).max()))
            np.testing.assert_allclose(values[name].detach().numpy(), data, 0, limit)


def compare(network: TrainedNetwork, feeds: list[dict[str, Array]]) -> int:
    """Every layer of the module in float64, of the integer network in torch, and of the simulator.

    Returns how many values had codes to compare.
    """
    network.module.double()  # scales learned in float32 have other last digits
    lowered = network.lowered()
    compiled = network.compiled()
    simulator = Executor(lowered.integer)
    assert network.module.scales is not None
    scales = network.module.scales.numbers()
    compared = 0
    for reals, codes in both_feeds(network, lowered.integer, feeds):
        expected = simulator.run(codes, taps="all")
        tensors = compiled.run(as_tensors(codes))
        for value, name in compiled.codes.items():
            np.testing.assert_array_equal(tensors[value].numpy(), expected[name], value)
        values = network.module(as_tensors(reals, double=True), tuple(tensors), tensors)
        for value, name in compiled.codes.items():
            if value in scales:
                real = expected[name].astype(np.float64) * scales[value]
                np.testing.assert_array_equal(values[value].detach().numpy(), real, value)
                compared += 1
    return compared


@pytest.mark.parametrize("seed", SEEDS)
def test_integers_of_random_networks(seed: int, tmp_path: Path) -> None:
    """Widths, quantizers and ranges at random; parameters moved as by training."""
    try:
        found, network = random_training(seed, tmp_path)
        integer = network.lowered().integer
    except QCompileError as error:
        pytest.skip(f"the compiler refuses this combination: {error}")
    if not is_all_integer(integer):
        pytest.skip("has float islands, which no two libraries add up alike")
    assert compare(network, list(map(dict, found.feeds))) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_random_networks(seed: int, tmp_path: Path) -> None:
    try:
        found, network = random_training(seed, tmp_path)
    except QCompileError as error:
        pytest.skip(f"the compiler refuses this combination: {error}")
    values = network.module(as_tensors(found.float_feeds()[0]), network.typed.activations())
    reals = [data for data in values.values() if data.requires_grad]
    if not reals:
        pytest.skip("has no parameters")
    torch.stack([data.square().mean() for data in reals]).sum().backward()
    trained = [item for item in network.module.trained if item.grad is not None]
    assert any((item.grad != 0).any() for item in trained) or not trained


@pytest.mark.parametrize("seed", SEEDS)
def test_model_files(seed: int, tmp_path: Path) -> None:
    """ONNX and plan, read by the ordinary pipeline without calibration, give the same integers."""
    from qcompile import compile_model
    from qcompile.config import resolve

    try:
        found, network = random_training(seed, tmp_path)
        files = model_files(network, {})
    except QCompileError as error:
        pytest.skip(f"the compiler refuses this combination: {error}")
    model, plan = tmp_path / "trained.onnx", tmp_path / "plan.toml"
    model.write_bytes(files.model)
    plan.write_text(files.plan_text("trained.onnx"))
    result = compile_model(model, resolve({"config": plan}))
    assert result.report.calibration == "plan"
    lowered = network.lowered().integer
    first, second = Executor(lowered), Executor(result.integer_graph)
    for _, codes in both_feeds(network, lowered, found.feeds):
        expected, got = first.run(codes), second.run(codes)
        for name, data in expected.items():
            np.testing.assert_array_equal(got[name], data)


def shared_network(shared_dir: Path, wbits: str, abits: str, quantizer: str) -> TrainedNetwork:
    path = shared_dir / "models" / "gm_unet8.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in the shared folder")
    options = CompileOptions(wbits=wbits, abits=abits, quantizer=quantizer)
    graph: Graph = run_passes(import_model(path), simplify_passes(options))
    specs = input_specs(graph, InputKind.UINT8, options)
    rng = np.random.default_rng(2)
    feeds = [{name: rng.random(graph.types[name].shape, np.float32) for name in graph.inputs}]
    calibration = calibrate(graph, feeds)
    network = make_trainable(graph, assign_formats(graph, options), specs, options, calibration)
    shake(network, 1, 0.02)
    return network


@pytest.mark.parametrize(
    ("wbits", "abits", "quantizer"),
    [("4", "6", "scaled"), ("ternary", "ternary", "twn"), ("4", "4", "dorefa"), ("5", "8", "pow2")],
)
def test_gm_unet8(shared_dir: Path, wbits: str, abits: str, quantizer: str) -> None:
    """A real network: skips, norms behind ReLU, interpolation."""
    network = shared_network(shared_dir, wbits, abits, quantizer)
    rng = np.random.default_rng(3)
    shape = network.graph.types[network.graph.inputs[0]].shape
    feed = {network.graph.inputs[0]: rng.integers(0, 256, shape).astype(np.uint8)}
    assert network.module.scales is not None
    assert compare(network, [feed]) == len(network.module.scales.numbers())
    assert len(model_files(network, {}).plan.layers) == len(network.graph.ops)


def test_quantised_models_are_refused() -> None:
    from qcompile.graph import Stage
    from qcompile.ops import FakeQuantize
    from qcompile.passes.calibrate import Calibration
    from qcompile.plan import Plan
    from qcompile.types import TensorType

    op = FakeQuantize(name="q", inputs=("x",), outputs=("y",), scale=0.1, low=-8, high=7)
    kind = TensorType((1, 3))
    graph = Graph("qat", Stage.FLOAT, ("x",), ("y",), (op,), {"x": kind, "y": kind}, {})
    with pytest.raises(UsageError, match="is quantised already"):
        make_trainable(graph, Plan(), {}, CompileOptions(), Calibration())
