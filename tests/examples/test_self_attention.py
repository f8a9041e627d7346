"""Self-attention beside convolution: the errors of the script, and its quick form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.examples.scripts import EXAMPLES, load_script
from tests.train.toy import write_data

SCRIPT = EXAMPLES / "self_attention/self_attention.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


def refused(arguments: list[str]) -> str:
    """What is said where the script ends with status 2."""
    command = [sys.executable, str(SCRIPT), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    return found.stderr


def test_errors(tmp_path: Path) -> None:
    path, out = tmp_path / "half.npz", tmp_path / "out"
    np.savez(path, train_x=np.zeros((2, 8, 8), np.uint8))
    given = ["--data", str(path), "--out", str(out)]
    assert refused(given).startswith("self_attention: error: half.npz: has no array 'train_y'")
    assert refused([*given, "--heads", "3"]).startswith(
        "self_attention: error: --heads: 3 must divide the 8 of --base"
    )
    assert not out.exists()


@pytest.mark.slow
def test_quick(script: ModuleType, tmp_path: Path) -> None:
    data = write_data(tmp_path / "discs.npz", 48, 8)
    out = tmp_path / "out"
    found = script.main(
        ["--data", str(data), "--out", str(out), "--quick", "--batch", "4", "--epochs", "20"]
    )
    rows = {(row["kind"], row["setting"]): row for row in found["rows"]}
    assert set(rows) == {(kind, bits) for kind in script.KINDS for bits in script.SETTINGS}
    assert all(row["verified"] for row in rows.values())
    for row in rows.values():
        assert row["dice_float"] > 0.6
        assert abs(row["dice"] - row["dice_float"]) < 0.05
        assert row["milliseconds"] > 0
    assert rows["attention", "8/8"]["sqnr_db"] > 25
    attention, twin = (rows[kind, "8/8"]["parameters"] for kind in script.KINDS)
    assert attention < twin
    assert json.loads((out / "results.json").read_text())["rows"] == found["rows"]
    assert "attention" in (out / "results.md").read_text()
