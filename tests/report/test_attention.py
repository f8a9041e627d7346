"""`--taps attention`: what is written, and what the report shows over the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from qcompile import CompileOptions, compile_model
from qcompile.backends.c.backend import CBackend
from qcompile.backends.hdl.backend import HdlBackend
from qcompile.cli import run
from qcompile.data.generated import generated_feeds
from qcompile.ops import Softmax
from qcompile.report.attention import AttentionLayer, AttentionMaps
from qcompile.report.html.attention import Box, attention_picture
from qcompile.result import CompileResult
from qcompile.sim.attention_maps import attention_layers, attention_maps
from qcompile.sim.executor import Executor
from qcompile.sim.places import Places, attention_places
from tests.report.attention_models import save_gated, save_model
from tests.report.test_html_page import Page


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    path = save_model(tmp_path_factory.mktemp("attention") / "net.onnx")
    return compile_model(path, CompileOptions(target="sim", taps="attention", verify=True))  # type: ignore[arg-type]


def test_the_c_program_computes_the_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    script = tmp_path / "cc-o0"
    script.write_text('#!/bin/sh\nexec gcc "$@" -O0 -DQCOMPILE_KEEP_FLAGS\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    model, folder = save_model(tmp_path / "net.onnx"), tmp_path / "out"
    flags = ["--taps", "attention", "--verify", "--mcu", "-q", "-o", str(folder)]
    assert run([str(model), *flags]) == 0
    assert "(compared" not in (folder / "report.md").read_text()
    assert "computes the same weights, compared bit by bit" in (folder / "report.md").read_text()
    assert "uint16_t *const attention = 0;" in (folder / "model.c").read_text()
    assert 'taps = "attention"' in (folder / "plan.toml").read_text()


def test_files(compiled: CompileResult, tmp_path: Path) -> None:
    compiled.write(tmp_path)
    files = sorted((tmp_path / "attention").iterdir())
    assert [path.name for path in files] == ["00-local.npz", "01-all_b.npz"]
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npz")} >= {
        "attention/00-local.npz",
        "attention/01-all_b.npz",
    }
    feeds = generated_feeds({"input": (1, 1, 8, 8)}, 0)[:2]
    expected = [attention_maps(compiled.integer_graph, feed) for feed in feeds]
    for path, name, shape in zip(
        files, ("/local", "../all<b>"), ((2, 9, 8, 8), (1, 17, 17)), strict=True
    ):
        with np.load(path, allow_pickle=False) as archive:
            assert str(archive["operator"]) == name
            assert archive["weights"].dtype == np.uint16
            assert archive["weights"].shape == (2, *shape)
            np.testing.assert_array_equal(archive["weights"], np.stack([m[name] for m in expected]))
            axis = 2 if name == "/local" else -1
            total = archive["weights"].sum(axis, dtype=np.int64)
            assert np.abs(total - archive["levels"]).max() <= shape[0] * 9
    found = json.loads((tmp_path / "report.json").read_text())["attention"]
    assert [item["file"] for item in found] == ["attention/00-local.npz", "attention/01-all_b.npz"]
    assert found[0] == {
        "name": "/local",
        "operator": "LocalAttention2d",
        "file": "attention/00-local.npz",
        "inputs": 2,
        "shape": [2, 9, 8, 8],
        "levels": 1 << 14,
    }


def test_page(compiled: CompileResult) -> None:
    page = Page(str(compiled.files()["report.html"]))
    assert "attention" in page.of("id")
    texts = " ".join(page.texts)
    assert "../all<b>" in texts
    assert "Sharpest head" in texts
    assert "Sharpest window" in texts
    assert "Centre" in texts
    assert page.of("href").count("#attention-image") >= 4


def test_places(compiled: CompileResult, tmp_path: Path) -> None:
    graph = compiled.integer_graph
    (op,) = (op for op in attention_layers(graph) if isinstance(op, Softmax))
    found = attention_places(graph, [op])[op.name]
    grid = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 4] * 2, indexing="ij"), -1).reshape(16, 2)
    for places in (found.queries, found.keys):
        assert places.shape == (1, 17, 2)
        assert np.isnan(places[0, 0]).all()
        np.testing.assert_allclose(places[0, 1:], grid, atol=1e-6)
    options = CompileOptions(target="sim")  # type: ignore[arg-type]
    rolled = compile_model(save_model(tmp_path / "net.onnx", windows=False), options)
    (op,) = (op for op in attention_layers(rolled.integer_graph) if isinstance(op, Softmax))
    found = attention_places(rolled.integer_graph, [op])[op.name]
    shifted = np.roll(grid.reshape(4, 4, 2), (-1, -1), (0, 1)).reshape(2, 2, 2, 2, 2)
    windows = shifted.transpose(0, 2, 1, 3, 4).reshape(4, 4, 2)
    np.testing.assert_allclose(found.queries, windows, atol=1e-6)
    np.testing.assert_allclose(found.keys, windows, atol=1e-6)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    path = save_gated(tmp_path_factory.mktemp("gates") / "net.onnx")
    return compile_model(path, CompileOptions(target="sim", taps="attention", verify=True))  # type: ignore[arg-type]


def test_gates(gated: CompileResult, tmp_path: Path) -> None:
    """One that is resized, and one for each channel; squeeze and excitation is none."""
    gated.write(tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())["attention"]
    assert [(item["name"], item["operator"], item["shape"]) for item in found] == [
        ("/gate", "Sigmoid", [1, 4, 4]),
        ("/full", "HardSigmoid", [4, 8, 8]),
    ]
    graph = gated.integer_graph
    feeds = generated_feeds({"input": (1, 1, 8, 8)}, 0)[:2]
    for item in found:
        output = graph.by_name[item["name"]].output
        grid = graph.types[output].quantization
        assert grid is not None
        codes = [Executor(graph).run(feed, taps=[output])[output][0] for feed in feeds]
        with np.load(tmp_path / item["file"], allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["weights"], np.stack(codes))
            assert archive["levels"] == item["levels"] == 1 / grid.scale[0]
            size = item["shape"][1]
            line = (np.arange(size) + 0.5) / size
            places = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
            np.testing.assert_allclose(archive["places"], places, atol=1e-6)
            assert sorted(archive.files) == ["levels", "operator", "places", "weights"]
    texts = " ".join(Page(str(gated.files()["report.html"])).texts)
    for caption in ("Gate", "Mean of the channels", "Most varied channel"):
        assert caption in texts


def test_programs_and_accelerators_keep_gates(gated: CompileResult) -> None:
    """So that --verify compares them."""
    graph = gated.integer_graph
    gates = {op.output for op in attention_layers(graph)}
    assert len(gates) == 2
    assert gates <= {value for _, value in CBackend().emit(graph).layout.taps}
    assert gates <= set(HdlBackend().plan(graph).design.taps)


def maps(layer: AttentionLayer) -> AttentionMaps:
    return AttentionMaps((layer,), np.zeros((8, 8), np.uint8), generated=False)


def test_which_queries_are_shown() -> None:
    """2 x 2 tokens, a class token and 2 heads; all tokens are equally near to the centre, so the
    first is."""
    weights = np.full((1, 2, 5, 5), 20, np.uint8)
    weights[0, 1, 0] = (70, 10, 10, 5, 5)
    weights[0, 1, 3] = (0, 0, 100, 0, 0)
    weights[0, 0, 4] = (0, 0, 0, 0, 100)
    grid = np.array([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75), [np.nan] * 2])
    places = Places(np.stack([grid, grid]), np.stack([grid, grid]))
    layer = AttentionLayer("s", "Softmax", "f", 100, weights, places=places)
    picture = attention_picture(maps(layer), None, "c")
    assert picture is not None
    panels = picture.rows[0].panels
    assert [panel.note for panel in panels] == [
        "weights[0, 1, 0], full colour 70 %, 5.00 % on class tokens",
        "weights[0, 0, 0], full colour 20 %, 20 % on class tokens",
        "weights[0, 1, 3], full colour 100 %",
    ]
    assert panels[0].place == Box(0, 0, 8, 8)
    assert [panel.mark for panel in panels] == [Box(0, 0, 4, 4), Box(0, 0, 4, 4), Box(4, 4, 4, 4)]


def test_the_sharpest_window() -> None:
    """Pixel (2, 3) of head 1 looks at its upper left neighbour alone."""
    weights = np.full((1, 2, 9, 8, 8), 11, np.uint16)
    weights[0, 1, :, 2, 3] = (99, 0, 0, 0, 0, 0, 0, 0, 0)
    layer = AttentionLayer(
        "w", "LocalAttention2d", "f", 99, weights, kernel=(3, 3), pads=(1, 1, 1, 1)
    )
    picture = attention_picture(maps(layer), None, "c")
    assert picture is not None
    sharp, broad, window = picture.rows[0].panels
    assert sharp.note.startswith("head 1:")
    assert broad.note.startswith("head 0:")
    assert window.note == "weights[0, 1, :, 2, 3], full colour 100 %"
    assert window.place == Box(2, 1, 3, 3)
    assert window.mark == Box(3, 2, 1, 1)


def test_which_gates_are_shown() -> None:
    """A picture runs from the least weight to the largest; places say where it lies."""
    weights = np.full((1, 2, 2, 4), 50, np.uint8)
    weights[0, 1, 1, 0], weights[0, 1, 0, 3] = 30, 90
    line = np.stack(np.meshgrid([0.6, 0.8], (np.arange(4) + 0.5) / 4, indexing="ij"), -1)
    layer = AttentionLayer("g", "Sigmoid", "f", 100.0, weights, places=Places(line, line))
    picture = attention_picture(maps(layer), None, "c")
    assert picture is not None
    mean, varied = picture.rows[0].panels
    assert mean.note == "mean of weights[0] over 2 channels, transparent 40 %, full colour 70 %"
    assert varied.note == "weights[0, 1], transparent 30 %, full colour 90 %"
    assert (varied.place.x, varied.place.width, varied.mark) == (0, 8, None)
    assert varied.place.y == pytest.approx(4)
    assert varied.place.height == pytest.approx(3.2)


@pytest.mark.parametrize("flags", [(), ("--wbits", "32", "--abits", "32")])
def test_networks_without_integer_attention(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_model(tmp_path / "net.onnx")
    if not flags:
        from tests.importer.models import build

        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Sigmoid", ["pooled"], ["gate"]),
            helper.make_node("Expand", ["gate", "shape"], ["expanded"]),
            helper.make_node("Mul", ["expanded", "x"], ["scaled"]),
            helper.make_node("Softmax", ["scaled"], ["y"], axis=1),
        ]
        shape = np.array([1, 2, 4, 4], np.int64)
        model = build(nodes, {"x": (1, 2, 4, 4)}, constants={"shape": shape})
        path.write_bytes(model.SerializeToString())
    folder = tmp_path / "out"
    assert run([str(path), "--taps", "attention", *flags, "-o", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    wanted = "computed in floats" if flags else "the network has no attention"
    assert f"qcompile: error: --taps attention: {'all attention of ' if flags else ''}" in error
    assert wanted in error
    assert not folder.exists()
