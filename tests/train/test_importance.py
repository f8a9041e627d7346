"""Taylor scores from the command line: the file, the main command, the sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qcompile.cli import run
from qcompile.exporter import export_float
from qcompile.importance_file import read_importance
from qcompile.options import CompileOptions
from qcompile.train.importance import model_scores
from qcompile.train.taylor import taylor_scores
from qcompile.train.taylor_options import TaylorMode, TaylorOf, TaylorOptions
from tests.train.planted import planted

COUNT = 6


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "planted.onnx"
    path.write_bytes(export_float(planted()[0], {}))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)
    path = tmp_path / "data.npz"
    labels = (images > 128).astype(np.uint8)
    np.savez(path, train_x=images, train_y=labels, val_x=images[:2], val_y=labels[:2])
    return path


def as_inputs(data: Path) -> dict[str, torch.Tensor]:
    pixels = np.load(data)["train_x"][:, None].astype(np.float32)
    return {"x": torch.from_numpy(pixels / 255)}


def test_the_file_has_the_scores_of_the_images(model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    flags = ["--of", "output", "--mode", "absolute", "--unit-layers", "--batch", "4"]
    assert run(["importance", str(model), "--data", str(data), "-o", str(path), *flags]) == 0
    options = TaylorOptions(TaylorOf.OUTPUT, TaylorMode.ABSOLUTE, unit_layers=True)
    expected = taylor_scores(planted()[0], [(as_inputs(data), None)], options)
    found = read_importance(path)
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, 1e-4, 1e-9)


def test_gradients_of_the_loss(model: Path, data: Path, tmp_path: Path) -> None:
    """Labels matter, and filters that do nothing still have no score."""
    results = []
    for index, labels in enumerate(("train_y", "swapped")):
        arrays = dict(np.load(data))
        arrays["swapped"] = 1 - arrays["train_y"]
        both = tmp_path / f"both{index}.npz"
        np.savez(both, **arrays)
        path = tmp_path / f"scores{index}.json"
        flags = ["--data", str(both), "--data-keys", f"train_x,{labels}", "--of", "loss"]
        assert run(["importance", str(model), *flags, "-o", str(path), "-q"]) == 0
        results.append(read_importance(path))
    first, second = results
    assert any(not np.allclose(first[name], second[name], 1e-3) for name in first)
    for scores in results:
        zero = {
            (name, int(at)) for name, item in scores.items() for at in np.flatnonzero(item == 0)
        }
        assert zero == planted()[1]


@pytest.mark.parametrize("of", [TaylorOf.LOSS, TaylorOf.RANDOM])
def test_no_more_images_than_asked_for(of: TaylorOf, model: Path, data: Path) -> None:
    """Even where they are no whole number of batches."""
    seen: list[tuple[int, int]] = []
    options = CompileOptions(data=str(data), calib_images=5)
    model_scores(model, options, TaylorOptions(of, batch=2), lambda *steps: seen.append(steps))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_the_main_command_prunes_by_taylor_scores(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    flags = ["--target", "sim", "--wbits", "32", "--abits", "32", "--data", str(data)]
    arguments = [str(model), *flags, "--prune", "0.23", "--importance", "taylor", "-o", str(folder)]
    assert run(arguments) == 0
    report = json.loads((folder / "report.json").read_text())
    filters = report["details"]["pruning"]["filters"]
    assert {name: pair[1] for name, pair in filters.items()} == {
        "first": 5,
        "second": 4,
        "third": 5,
        "tied": 5,
        "last": 2,
    }
    assert report["totals"]["dice_difference"] == 0
    scores = read_importance(folder / "prune-importance.json")
    expected = taylor_scores(planted()[0], [(as_inputs(data), None)])
    np.testing.assert_allclose(scores["third"], expected["third"], 1e-4, 1e-9)
    assert "filters removed" in capsys.readouterr().out
    again = tmp_path / "again"
    assert run([str(model), "--config", str(folder / "plan.toml"), "-o", str(again), "-q"]) == 0


def test_the_sweep_takes_taylor_scores(model: Path, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "sweep.json"
    flags = ["--data", str(data), "--ratios", "0.23", "--importance", "taylor", "--workers", "1"]
    assert run(["sweep", str(model), *flags, "--json", str(table), "-q"]) == 0
    rows = json.loads(table.read_text())["rows"]
    assert [row["filters"] for row in rows] == [26, 21]
    assert rows[0]["dice"] == rows[1]["dice"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ([], "need images: give --calib"),
        (["--of", "loss", "--calib", "{data}"], "need labels: give --data"),
        (["--data", "{data}", "--batch", "0"], "--batch: 0 is too small"),
        (["--data", "{data}", "-o", "scores.txt"], "no name of a .json file"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    fragment: str,
    model: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [item.replace("{data}", str(data)) for item in arguments]
    assert run(["importance", str(model), *given]) == 2
    error = capsys.readouterr().err
    assert fragment in error
    assert error.count("\n") == 1
