"""TernaryNet: the errors of the script, and its quick form."""

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

SCRIPT = EXAMPLES / "ternarynet/ternarynet.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


def test_errors(tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    np.savez(path, train_x=np.zeros((2, 8, 8), np.uint8))
    command = [sys.executable, str(SCRIPT), "--data", str(path), "--out", str(tmp_path / "out")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("ternarynet: error: half.npz: has no array 'train_y'")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_quick(script: ModuleType, tmp_path: Path) -> None:
    data = write_data(tmp_path / "discs.npz", 48, 8)
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--quick"]
    arguments += ["--epochs", "20", "--batch", "4", "--lr", "0.01", "--depth", "1"]
    found = script.main(arguments)
    assert found["verified"]
    assert found["dice_ternary"] > 0.6
    assert found["dice_ternary"] == found["dice_ternary_real_numbers"]
    assert found["smaller"] >= 0.93
    assert found["ternary_macs"] > 0.95
    assert 0 < found["zero_weights"] < 1
    assert 0 < found["zero_activations"] < 1
    assert found["milliseconds"]["ternary"] > 0
    written = json.loads((out / "results.json").read_text())
    assert written["dice_float"] == found["dice_float"]
    assert "ternary" in (out / "results.md").read_text()
    again = script.main([*arguments, "--resume"])
    for name in ("dice_float", "dice_ternary", "smaller", "zero_activations"):
        assert again[name] == found[name]
