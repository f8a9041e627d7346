"""The example that trains weights only, in its quick form on drawn images."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcompile.types import Array

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "quantized_fcn" / "train_weights.py"
HEIGHT, WIDTH = 64, 96


def write_glands(path: Path, train: int, val: int) -> Path:
    """Dark rings with bright insides on a pink ground."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    arrays: dict[str, Array] = {}
    for part, count in (("train", train), ("val", val)):
        images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
        masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
        for index in range(count):
            pixels = np.full((HEIGHT, WIDTH, 3), (200.0, 130.0, 190.0))
            for _ in range(3):
                row, column = rng.uniform(8, HEIGHT - 8), rng.uniform(8, WIDTH - 8)
                far = np.hypot(rows - row, columns - column) / rng.uniform(7, 13)
                masks[index] |= (far < 1).astype(np.uint8)
                pixels[far < 1] = (90, 60, 140)
                pixels[far < 0.6] = (235, 225, 235)
            pixels += rng.normal(0, 12, pixels.shape)
            images[index] = np.clip(pixels, 0, 255)
        arrays |= {f"{part}_x": images, f"{part}_y": masks}
    names = ("train_x", "train_y", "val_x", "val_y")
    train_x, train_y, val_x, val_y = (arrays[name] for name in names)
    np.savez(path, train_x=train_x, train_y=train_y, val_x=val_x, val_y=val_y)
    return path


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "scipy"))),
    reason="the extras 'train' and 'medical' are not installed (torch, scipy)",
)
def test_quick_form(tmp_path: Path) -> None:
    """Every format is trained, compiled, and takes the bytes that it should."""
    data = write_glands(tmp_path / "glands.npz", 12, 4)
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "--quick", "--device", "cpu"], check=True, env=environment, timeout=1500
    )
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    rows = {name: others for name, *others in cells}
    assert list(rows) == ["float", "INQ-7", "INQ-5", "DoReFa-5", "TWN"]
    assert float(rows["float"][0]) > 0.5
    assert float(rows["INQ-5"][0]) > 0.4
    assert [others[4] for others in rows.values()] == ["1.00x", "4.57x", "6.40x", "6.40x", "16.00x"]
    emitted = {name: int(others[6].replace(",", "")) for name, others in rows.items()}
    assert emitted["TWN"] < emitted["INQ-5"] <= emitted["INQ-7"] < emitted["float"] / 4
    history = json.loads((tmp_path / "out" / "INQ-7" / "history.json").read_text())
    assert history["epochs"][history["best_epoch"]]["frozen"] == 1
