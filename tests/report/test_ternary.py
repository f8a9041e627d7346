"""What the report says of ternary layers, counted anew."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.report.html.page import to_html
from qcompile.report.markdown import to_markdown
from qcompile.report.table import print_report
from qcompile.report.ternary import ternary_lines, value_sets
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from tests.formats.ternary import TernaryNet, unet


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).normal(size=(3, 1, 16, 16)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, images: Path) -> CompileResult:
    folder = tmp_path_factory.mktemp("ternary")
    options = CompileOptions(target=Target.SIM, calib=str(images))
    return compile_model(unet(folder), options)


def test_value_sets(compiled: CompileResult) -> None:
    graph = compiled.integer_graph
    sets = value_sets(graph)
    names = [(op.kind, sets[op.output].name) for op in graph.ops]
    assert names == [
        ("Quantize", "8 bit"),
        ("Conv", "ternary"),
        ("Conv", "ternary"),
        ("AveragePool", "k/4"),
        ("Conv", "ternary"),
        ("Conv", "ternary"),
        ("LinearResize", "k/16"),
        ("Rescale", "k/16"),
        ("Concat", "k/16"),
        ("Conv", "ternary"),
        ("Conv", "8 bit"),
        ("Conv", "16 bit"),
        ("Dequantize", "float"),
    ]


def test_values_are_in_their_sets(compiled: CompileResult, images: Path) -> None:
    graph = compiled.integer_graph
    feed = {"x": np.load(images)[:1]}
    values = Executor(graph).run(feed, taps="all")
    for name, found in value_sets(graph).items():
        grid = graph.types[name].quantization
        if found.parts is None or grid is None:
            continue
        steps = values[name] * grid.scale[0] / float(found.unit) * found.parts
        assert (steps == np.rint(steps)).all()
        assert np.abs(steps).max() <= found.parts


def test_products_zeros_and_bytes(compiled: CompileResult, images: Path) -> None:
    summary = compiled.report.ternary
    assert summary is not None
    base, pixels = 4, 16 * 16
    products = {
        "ternary": 9 * base * base * pixels + 9 * (2 * base) ** 2 * pixels // 4,
        "k/4": 9 * base * 2 * base * pixels // 4,
        "k/16": 9 * 3 * base * base * pixels,
    }
    last = 9 * base * base * pixels  # ternary too, behind a ternary layer
    assert summary.macs("ternary") == products["ternary"] + last
    assert summary.macs("k/4") == products["k/4"]
    assert summary.macs("k/16") == products["k/16"]
    ends = 9 * base * pixels + 2 * base * pixels
    assert summary.macs() == sum(products.values()) + last + ends
    weights = 9 * (base * base + 2 * base * base + 4 * base * base + 3 * base * base + base * base)
    assert summary.weights == weights
    assert summary.packed_bytes == weights // 4
    graph = compiled.integer_graph
    ternary = [op for op in graph.ops if op.kind == "Conv"][1:6]
    codes = np.concatenate([graph.constants[op.inputs[1]].ravel() for op in ternary])
    assert summary.weight_zeros == pytest.approx(float((codes == 0).mean()), abs=1e-6)
    zeros = size = 0
    for image in np.load(images):
        values = Executor(graph).run({"x": image[None]}, taps="all")
        for op in [item for item in graph.ops if item.kind == "Conv"][:5]:
            zeros += int((values[op.output] == 0).sum())
            size += values[op.output].size
    assert summary.activation_zeros == pytest.approx(zeros / size, abs=1e-6)


def test_everywhere_in_the_report(compiled: CompileResult) -> None:
    summary = compiled.report.ternary
    assert summary is not None
    assert len(summary.hardened) == 3
    document = json.loads(compiled.report.to_json())["ternary"]
    assert document["hardened"] == dict(summary.hardened)
    assert [layer["inputs"] for layer in document["layers"]] == [
        "8 bit", "ternary", "k/4", "ternary", "k/16", "ternary", "8 bit",
    ]  # fmt: skip
    stream = StringIO()
    print_report(compiled.report, stream)
    for what, _ in ternary_lines(summary):
        for text in (stream.getvalue(), to_markdown(compiled.report), to_html(compiled.report)):
            assert what in text


def test_networks_without_ternary_layers_say_nothing(tmp_path: Path) -> None:
    net = TernaryNet()
    y = net.conv("x", net.rng.normal(size=(2, 1, 3, 3)))
    path = net.save(tmp_path / "net.onnx", y, x=(1, 1, 8, 8))
    report = compile_model(path, CompileOptions(target=Target.SIM)).report
    assert report.ternary is None
    assert json.loads(report.to_json())["ternary"] is None
    assert "Ternary" not in to_markdown(report)
