"""The trained and exported networks: import, and agreement with onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qcompile.graph import Stage
from qcompile.importer import import_model
from qcompile.sim.executor import Executor
from qcompile.types import Array

MODELS = (
    "cvc_resunet",
    "em_unet16",
    "gm_unet8",
    "monai_basicunet_d18",
    "nnunet_resenc_l13",
    "pancreas_unet16",
    "sedgen_unet",
    "selfie_segmentation",
    "smp_unet_r18_d18b",
    "smp_unet_r18_l17",
)

TOLERANCE = 1e-3
"""Of the largest magnitude of the reference."""


def _path(shared_dir: Path, name: str) -> Path:
    path = shared_dir / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in the shared folder")
    return path


def _assert_close(results: dict[str, Array], expected: dict[str, Array]) -> None:
    for name, reference in expected.items():
        assert results[name].shape == reference.shape
        error = float(np.abs(results[name] - reference).max())
        assert error <= TOLERANCE * float(np.abs(reference).max())


def test_list_is_complete(shared_dir: Path) -> None:
    assert {path.stem for path in (shared_dir / "models").glob("*.onnx")} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_shapes(shared_dir: Path, name: str) -> None:
    path = _path(shared_dir, name)
    graph = import_model(path)
    assert graph.stage is Stage.FLOAT
    listed = {entry["file"]: entry for entry in _index(shared_dir)}.get(path.name)
    if listed is None:
        pytest.skip("not in index.json")
    assert {n: list(graph.types[n].shape) for n in graph.inputs} == listed["run_shapes"]
    assert {n: list(graph.types[n].shape) for n in graph.outputs} == listed["run_out_shapes"]


def _index(shared_dir: Path) -> list[dict[str, object]]:
    content = json.loads((shared_dir / "models" / "index.json").read_text())
    assert isinstance(content, list)
    return content


@pytest.mark.parametrize("name", MODELS)
def test_stored_reference(shared_dir: Path, name: str) -> None:
    path = _path(shared_dir, name)
    stored = path.with_suffix(".npz")
    if not stored.exists():
        pytest.skip("no stored reference")
    with np.load(stored) as data:
        feeds = {key.removeprefix("in/"): data[key] for key in data if key.startswith("in/")}
        expected = {key.removeprefix("out/"): data[key] for key in data if key.startswith("out/")}
    _assert_close(Executor(import_model(path)).run(feeds), expected)


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime(shared_dir: Path, name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = _path(shared_dir, name)
    graph = import_model(path)
    feeds = _images(shared_dir, path, {n: graph.types[n].shape for n in graph.inputs})
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected = dict(zip(graph.outputs, session.run(list(graph.outputs), feeds), strict=True))
    _assert_close(Executor(graph).run(feeds), expected)


def _images(shared_dir: Path, path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """The stored input, which the trained networks know, or else smooth random images."""
    stored = path.with_suffix(".npz")
    if stored.exists():
        with np.load(stored) as data:
            return {name: data[f"in/{name}"] for name in shapes}
    rng = np.random.default_rng(7)
    return {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}
