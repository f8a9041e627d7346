"""Training starts where quantising without training ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from qcompile.boundary import InputSpec
from qcompile.feeds import float_feed
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.pipeline import simplify_passes
from qcompile.quantization import Quantization
from qcompile.sim.executor import Executor
from qcompile.train.start import start_training
from tests.train.toy import discs, write_data, write_model


@pytest.mark.parametrize(
    ("wbits", "abits", "quantizer"),
    [
        ("4", "6", "scaled"),
        ("3", "8", "fixed"),
        ("ternary", "4", "ternary"),
        ("ternary", "6", "twn"),
        ("5", "6", "pow2"),
        ("4", "6", "fxp-em"),
        ("16", "16", "scaled"),
    ],
)
def test_same_integers(tmp_path: Path, wbits: str, abits: str, quantizer: str) -> None:
    """Equalised, compensated and snapped as by `--effort normal`, or nearest codes."""
    data = write_data(tmp_path / "data.npz")
    options = CompileOptions(
        wbits=wbits, abits=abits, quantizer=quantizer, calib=f"{data}:train_x", target="sim"
    )
    path = write_model(tmp_path / "toy.onnx")
    graph = run_passes(import_model(path), simplify_passes(options))
    specs = {"x": InputSpec()}
    feeds = [{"x": image[None, None]} for image in discs(8, 1)[0]]
    network = start_training(graph, specs, options, feeds)
    calibration = calibrate(graph, [float_feed(feed, specs) for feed in feeds], options.seed)
    plan = assign_formats(graph, options)
    expected = Quantization(graph, calibration, specs, options, feeds).lowered(plan)
    first, second = Executor(expected.integer), Executor(network.lowered().integer)
    for feed in feeds:
        np.testing.assert_array_equal(first.run(feed)["y"], second.run(feed)["y"])


def test_dorefa_keeps_the_network(tmp_path: Path) -> None:
    """Weights are divided by their largest tanh, gains multiplied: as good as floats at 8 bits."""
    options = CompileOptions(wbits="8", abits="32", quantizer="dorefa", target="sim")
    path = write_model(tmp_path / "toy.onnx")
    graph = run_passes(import_model(path), simplify_passes(options))
    small = {
        name: data * np.float32(0.1) if data.ndim == 4 else data
        for name, data in graph.constants.items()
    }
    graph = dataclasses.replace(graph, constants=small)  # where tanh is a straight line
    specs = {"x": InputSpec()}
    feeds = [{"x": image[None, None]} for image in discs(4, 1)[0]]
    network = start_training(graph, specs, options, feeds)
    first, second = Executor(graph), Executor(network.lowered().integer)
    for feed in feeds:
        wanted = first.run(float_feed(feed, specs))["y"]
        found = second.run(feed)["y"]
        assert float(np.abs(found - wanted).max()) < 0.05 * float(np.abs(wanted).max())
