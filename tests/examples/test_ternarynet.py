"""TernaryNet: the numbers that the script takes from reports, its errors, and the quick form."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from qcompile.train.ternary_layers import Continuation, deployed
from qcompile.train.ternary_unet import TernaryUNet, UNetShape
from tests.train.toy import write_data

SCRIPT = Path(__file__).resolve().parents[2] / "examples/ternarynet/ternarynet.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ternarynet", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_share_of_ternary_products(script: ModuleType) -> None:
    """Ternary weights on pixels do not count, nor 8-bit weights on ternary values."""

    def layer(value: str, reads: str, weights: str | None, values: str, macs: int) -> object:
        return {
            "value": value,
            "reads": [reads],
            "weight_format": weights,
            "activation_format": values,
            "macs": macs,
        }

    layers = [
        layer("a", "image", "ternary scale per channel, exact", "ternary Q1.0", 100),
        layer("b", "a", "ternary scale per channel, exact", "ternary Q1.0", 30),
        layer("p", "b", None, "ternary Q1.0", 0),
        layer("c", "p", "ternary scale per channel, exact", "scale 0.1", 20),
        layer("d", "p", "scale per channel, exact", "scale 0.1", 50),
    ]
    assert script.ternary_share({"layers": layers, "totals": {"macs": 200}}) == 0.25


def test_zeros(script: ModuleType) -> None:
    """Counted anew: of weights in ternary layers, of the activations of all images."""
    torch.manual_seed(0)
    network = TernaryUNet(UNetShape(base=3, depth=1), Continuation(3, is_hard=True))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    network(torch.rand(8, 1, 8, 8))
    plain = deployed(network)
    weights = torch.cat(
        [
            layer.on_grid().flatten()
            for name, layer in network.named_modules()
            if name in ("down.0.3", "down.1.0", "down.1.3", "up.0.0", "up.0.3")
        ]
    )
    first = script.zeros(plain, images)
    assert first[0] == float((weights == 0).double().mean())
    assert 0.1 < first[1] < 0.9
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(layer.weight)
    assert script.zeros(deployed(network), images)[1] == 1


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
    arguments = ["--data", str(data), "--out", str(out), "--quick", "--epochs", "12"]
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
