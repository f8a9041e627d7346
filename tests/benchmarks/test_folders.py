"""`benchmarks/folders.py`: emitted programs, timed side by side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from benchmarks.cpu_bench.unet import UNet
from qcompile import compile_model
from qcompile.config import resolve

FOLDERS = Path(__file__).parents[2] / "benchmarks" / "folders.py"
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDERS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_gcc
def test_folders_take_turns(tmp_path: Path) -> None:
    folders = []
    for name, width in (("narrow", 2), ("wide", 16)):
        model = tmp_path / f"{name}.onnx"
        onnx.save(UNet(width, depth=1, size=16).build(), model)
        folder = tmp_path / name
        compile_model(model, resolve({"wbits": "4", "abits": "6"})).write(folder)
        folders.append(str(folder))
    path = tmp_path / "times.json"
    flags = ["--rounds", "2", "--batch-seconds", "0.002", "--json", str(path)]
    done = run(*folders, *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert [item["folder"] for item in found] == folders
    assert all(0 < item["least"] <= item["median"] for item in found)
    assert found[0]["least"] < found[1]["least"]
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {name}" for name in folders]
    assert lines[2].endswith("| 1.00 |")


def test_a_folder_without_c(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.endswith(f"{tmp_path}: has no model.c; give folders that qcompile wrote\n")
    assert "Traceback" not in done.stderr
