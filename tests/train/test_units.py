"""A step of training is the same whether channels were equalised before it or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qcompile.boundary import InputSpec
from qcompile.feeds import float_feed
from qcompile.graph import Graph, Op
from qcompile.importer import import_model
from qcompile.ops import WEIGHTED, Affine
from qcompile.options import CompileOptions, Target
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.passes.equalize_channels import Balance, EqualizeChannels
from qcompile.pipeline import simplify_passes
from qcompile.train.graph_module import GraphModule
from qcompile.train.start import start_training
from qcompile.train.units import parameter_units, step_in_units
from tests.properties.compiled import example
from tests.train.networks import options_for
from tests.train.toy import discs, write_model


def parameters_of(module: GraphModule, op: Op) -> list[torch.Tensor | None]:
    """Weights, bias, gain and shift; None where they are constants."""
    constants = [module.constant(name) for name in op.inputs[1:]]
    vectors = module.activation_vectors(op)
    return [*constants, vectors.gain, vectors.shift]


def equalised(path: Path, wbits: str, abits: str) -> tuple[Graph, Graph, EqualizeChannels]:
    """The toy network, as it is and with moved channels."""
    images = discs(8, 1)[0]
    options = CompileOptions(wbits=wbits, abits=abits, target=Target.SIM)
    graph = run_passes(import_model(path), simplify_passes(options))
    specs = {"x": InputSpec()}
    feeds = [float_feed({"x": image[None, None]}, specs) for image in images]
    plan = assign_formats(graph, options)
    equalize = EqualizeChannels(plan, calibrate(graph, feeds), specs, Balance.BOTH)
    return graph, run_passes(graph, (equalize,)), equalize


@pytest.mark.parametrize("seed", range(3))
def test_units_are_what_equalisation_multiplied_by(seed: int, tmp_path: Path) -> None:
    found = example(seed, tmp_path, benign=False)
    options = options_for(found)
    graph = run_passes(found.imported, simplify_passes(options))
    plan = assign_formats(graph, options)
    calibration = calibrate(graph, found.float_feeds())
    equalize = EqualizeChannels(plan, calibration, found.specs, Balance.BOTH)
    before, after = GraphModule(graph), GraphModule(run_passes(graph, (equalize,)))
    units = {id(item): unit for item, unit in parameter_units(after, equalize.factors(graph))}
    for op in after.graph.ops:
        if not isinstance(op, (*WEIGHTED, Affine)) or not after.graph.is_constant(op.inputs[1]):
            continue
        plain = parameters_of(before, graph.by_name[op.name])
        for old, new in zip(plain, parameters_of(after, op), strict=False):
            if isinstance(old, nn.Parameter) and isinstance(new, nn.Parameter):
                unit = units.get(id(new), torch.tensor(1.0))
                torch.testing.assert_close(new, old * unit, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("wbits", "abits"), [("4", "6"), ("16", "16")])
def test_steps_keep_the_function_the_same(wbits: str, abits: str, tmp_path: Path) -> None:
    graph, moved, equalize = equalised(write_model(tmp_path / "toy.onnx"), wbits, abits)
    factors = equalize.factors(graph)
    assert factors
    outputs = []
    x = torch.from_numpy(discs(4, 3)[0][:, None] / 255).double()
    for chosen, known in ((graph, {}), (moved, factors)):
        module = GraphModule(chosen).double()
        optimizer = torch.optim.Adam(module.parameters(), 0.01, eps=1e-30)
        units = parameter_units(module, known)
        for _ in range(5):
            loss = ((module({"x": x})["y"] - 1) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            step_in_units(optimizer, units)
        outputs.append(module({"x": x})["y"].detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)


def test_training_of_an_equalised_network_has_units(tmp_path: Path) -> None:
    options = CompileOptions(wbits="16", abits="16", target=Target.SIM)
    graph = run_passes(import_model(write_model(tmp_path / "toy.onnx")), simplify_passes(options))
    feeds = [{"x": image[None, None]} for image in discs(8, 1)[0]]
    network = start_training(graph, {"x": InputSpec()}, options, feeds)
    units = parameter_units(network.module, network.factors)
    conv = network.module.graph.by_name["conv2"]
    weights = network.module.constant(conv.inputs[1])
    (unit,) = (unit for item, unit in units if item is weights)
    old = torch.tensor(graph.constants[graph.by_name["conv2"].inputs[1]])
    data = weights.detach()
    assert (data - old * unit).norm() < 0.1 * data.norm() < (data - old).norm()
