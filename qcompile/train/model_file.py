"""The trained network as files: a float ONNX model, and the plan it is compiled by."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile import __version__
from qcompile.data import random_feeds
from qcompile.errors import GraphError, Unsupported, UnsupportedError
from qcompile.exporter import export_float
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.passes.base import run_passes
from qcompile.pipeline import simplify_passes
from qcompile.plan import Plan
from qcompile.plan_file import plan_text
from qcompile.sim.executor import Executor
from qcompile.train.network import TrainedNetwork


@dataclass(frozen=True)
class ModelFiles:
    """What `qcompile model.onnx --config plan.toml` makes the trained network of.

    Attributes:
        model: a float ONNX model with weights on their grids.
        options: as the plan has them.
        plan: formats and scales by the names that the model's operators have.
    """

    model: bytes
    options: CompileOptions
    plan: Plan

    def plan_text(self, comment: str) -> str:
        """The plan as TOML."""
        return plan_text(self.options, self.plan, comment)


def model_files(network: TrainedNetwork, metadata: Mapping[str, str]) -> ModelFiles:
    """The files of a network as it is trained so far. They are read again, to see that the compiler
    makes the same integers of them.

    Args:
        network: in training, or before it.
        metadata: what the model says of its origin.

    Raises:
        UnsupportedError: an operator has no form in ONNX that can be imported again.
        GraphError: other integers came out (a bug of ours).
    """
    lowered = network.lowered()
    content = export_float(lowered.real, metadata, __version__)
    shapes = {name: lowered.real.types[name].shape for name in lowered.real.inputs}
    options = dataclasses.replace(network.compile_options(), input_shapes=shapes)
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        imported = run_passes(import_model(path), simplify_passes(options))
    plan = _renamed(network.trained_plan(), lowered.real, imported)
    again = network.lowered_by(imported, plan)
    _check_same(lowered.integer, again.integer, network.options.seed)
    return ModelFiles(content, options, plan)


def _renamed(plan: Plan, before: Graph, after: Graph) -> Plan:
    """The plan with the names of the operators that write the same values in `after`."""
    layers, unknown = {}, []
    for op in after.ops:
        source = before.producers.get(op.output)
        if source is not None and source.name in plan.layers:
            layers[op.name] = plan.layers[source.name]
        else:
            reason = "an operator of its float network is exported as several"
            unknown.append(Unsupported(op.kind, op.name, reason, "train a network without it"))
    if unknown:
        raise UnsupportedError(unknown, "export of trained networks")
    return Plan(plan.inputs, layers)


def _check_same(first: Graph, second: Graph, seed: int) -> None:
    """Every value of both graphs is the same on made-up inputs."""
    one, other = Executor(first), Executor(second)
    taps = [value for value in first.activations() if value in second.types]
    for feed in random_feeds(first, seed):
        expected, found = one.run(feed, taps), other.run(feed, taps)
        for value in (*taps, *first.outputs):
            if not np.array_equal(expected[value], found[value], equal_nan=True):
                raise GraphError(
                    f"value '{value}' of the trained network does not come out of its ONNX model "
                    f"again; please report this"
                )
