"""The quick form of Taylor pruning: all of it runs, and goes on where it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.toy import write_data, write_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "taylor_pruning" / "prune_polyps.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--quick", "--device", "cpu", *arguments]
    return subprocess.run([str(item) for item in command], capture_output=True, text=True)


@pytest.mark.slow
def test_quick(tmp_path: Path) -> None:
    model, data = write_model(tmp_path / "toy.onnx"), write_data(tmp_path / "data.npz")
    out = tmp_path / "out"
    flags = ["--model", model, "--data", data, "--out", out]
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "results.json").read_text())
    whole = found["pruned"]["not-pruned-100"]
    assert len(found["pruned"]) == 6
    for key, row in found["pruned"].items():
        share = 1.0 if row is whole else 0.5
        assert share * whole["flops"] * 0.5 < row["flops"] <= share * whole["flops"], key
        assert row["iou"] <= row["dice"]
    tuned = found["tuned"]["taylor-output-absolute-50-seed0"]
    before = found["pruned"]["taylor-output-absolute-50"]
    assert tuned["flops"] == before["flops"]
    assert tuned["dice"] == pytest.approx(max(before["dice"], tuned["last"]), abs=1e-6)
    compiled = found["compiled"]["taylor-output-absolute-50"]
    assert compiled["dice_float"] == pytest.approx(tuned["dice"], abs=1e-6)
    assert compiled["emitted"] < found["compiled"]["not-pruned-100"]["emitted"]
    page = (out / "results.md").read_text()
    assert f"| taylor output absolute | yes | {tuned['parameters']:,} (" in page
    if shutil.which("gcc") is not None:
        assert compiled["verified"]
        assert all(seconds > 0 for seconds in found["timed"]["all"].values())

    # What is known is not measured again, and what was lost is.
    del found["tuned"]["l1-50-seed0"]
    (out / "results.json").write_text(json.dumps(found))
    again = run(*flags)
    assert again.returncode == 0, again.stderr
    assert [line.split()[:2] for line in again.stdout.splitlines()] == [["tuned", "l1-50-seed0"]]
    assert json.loads((out / "results.json").read_text())["compiled"] == found["compiled"]
    assert (out / "results.md").read_text() == page
    for others in (("--seed", "1"), ("--epochs", "2")):
        other = run(*flags, *others)
        assert other.returncode == 2
        assert "has results of another run" in other.stderr
    wrong = run(*flags, "--epochs", "0")
    assert (wrong.returncode, wrong.stderr) == (2, "--epochs: 0 is too small; use 1 or more\n")


def test_data_without_validation(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, train_x=np.zeros((2, 16, 16), "u1"), train_y=np.zeros((2, 16, 16), "u1"))
    out = tmp_path / "out"
    done = run("--model", write_model(tmp_path / "toy.onnx"), "--data", data, "--out", out)
    assert done.returncode == 2
    assert done.stderr == "data.npz: has no array 'val_x'; it has 'train_x', 'train_y'\n"
    assert not out.exists()
