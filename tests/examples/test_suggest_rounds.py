"""Rounds of suggestive annotation: table, plot, data, and the quick form."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.examples.scripts import EXAMPLES, load_script

FOLDER = EXAMPLES / "quantized_fcn"
METRICS = ("dice", "f1", "object_dice", "object_hausdorff")


def load(name: str) -> ModuleType:
    return load_script(FOLDER / f"{name}.py")


def cell(way: str, share: int, seed: int, dice: float) -> dict[str, Any]:
    scores = dict.fromkeys(METRICS, 0.5) | {"dice": dice}
    return {"way": way, "share": share, "seed": seed, "scores": scores}


def test_table_and_plot() -> None:
    plots = load("round_plots")
    results = [
        cell("all", 100, 0, 0.8),
        cell("all", 100, 1, 0.9),
        cell("random", 25, 0, 0.5),
        cell("random", 25, 1, 0.7),
        cell("float", 25, 0, 0.6),
    ]
    lines = plots.table_text(results, []).splitlines()
    assert lines[0] == "float networks:"
    assert lines[4].startswith("| 25 % | drawn at random | 0.6000 ± 0.1414 | 0.5000 ± 0.0000 |")
    assert lines[5].startswith("| 25 % | suggested, float ensemble | 0.6000 | 0.5000 |")
    assert lines[6].startswith("| 100 % | all images | 0.8500 ± 0.0707 |")
    picture = ET.fromstring(plots.rounds_svg(results))
    dots = [item for item in picture.iter() if item.tag.endswith("circle")]
    assert len(dots) == 4 * len(results) + 4  # four diagrams and the legend


def test_smaller_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    script = load("suggest_rounds")
    images = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4)
    found = script.smaller(images, 2)
    assert found.shape == (2, 2, 2)
    assert found[0].tolist() == [[3, 5], [11, 13]]  # 2.5, 4.5, ... half up
    assert script.smaller(np.array([[[0, 1], [1, 0]]], np.uint8), 2).tolist() == [[[1]]]


def said_by(command: list[str]) -> str:
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.slow
def test_the_quick_form_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :144]
    arrays: dict[str, Any] = {}
    for part, count in (("train", 16), ("val", 5)):
        masks = np.stack(
            [
                np.hypot(rows - rng.uniform(30, 66), columns - rng.uniform(40, 104)) < 25
                for _ in range(count)
            ]
        )
        noise = rng.normal(0, 10, (count, 96, 144, 3))
        arrays[f"{part}_x"] = np.clip(90 + 80 * masks[..., None] + noise, 0, 255).astype(np.uint8)
        arrays[f"{part}_y"] = masks.astype(np.uint8)
    np.savez(tmp_path / "data.npz", **arrays)
    out = tmp_path / "out"
    command = [sys.executable, str(FOLDER / "suggest_rounds.py"), "--quick", "--device", "cpu"]
    command += ["--data", str(tmp_path / "data.npz"), "--out", str(out)]
    first = said_by(command)
    assert "seed 0, round-quantised-50" in first
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    for network in ("float", "codes"):
        cells = [(item["way"], item["share"]) for item in results[network]]
        assert cells == [("all", 100), ("random", 50), ("float", 50), ("quantised", 50)]
        for item in results[network]:
            assert 0.5 < item["scores"]["dice"] <= 1
    for way in ("float", "quantised"):
        path = out / "seed-0" / f"round-{way}-50.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        assert len(found["labelled"]) == 8
        assert len(found["suggested"]) == 4
        assert found["uncertainty"] > 0
    table = (out / "table.md").read_text(encoding="utf-8")
    (out / "seed-0" / "final-float-50.json").unlink()
    again = said_by(command)
    lines = [line for line in again.splitlines() if line.startswith("seed")]
    assert len(lines) == 1
    assert lines[0].startswith("seed 0, final-float-50")
    assert (out / "table.md").read_text(encoding="utf-8") == table
