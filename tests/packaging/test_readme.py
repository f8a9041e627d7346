"""What the README shows works as shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def compile_command(block: str) -> list[str]:
    """The words of the qcompile call in a shell block."""
    command = block.replace("\\\n", " ").split(".venv/bin/qcompile", 1)[1]
    return [sys.executable, "-m", "qcompile.cli", *command.split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the included example, where the first set-up command has compiled it."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", folder / "examples")
    done = run(compile_command(blocks("sh")[0]), folder)
    assert "verified: C and simulator agree" in done.stdout
    return folder


def test_there_are_two_set_up_commands() -> None:
    set_up = [block for block in blocks("sh") if "python3 -m venv" in block]
    assert len(set_up) == 2
    assert ".venv/bin/pytest -q -n auto" in set_up[1]
    assert 'pytest" -q -n auto' in (ROOT / ".ci" / "run").read_text()


def test_the_numbers_are_measured(folder: Path) -> None:
    totals = json.loads((folder / "build/brain/report.json").read_text())["totals"]
    rows = re.findall(r"^\| (?:float|4-bit).*?\| ([0-9.]+) \| ([0-9.]+) \|$", README, re.MULTILINE)
    before, after = (tuple(map(float, row)) for row in rows)
    assert sum(before) / 2 == pytest.approx(totals["dice_float"], abs=1e-4)
    # Calibration runs in float, so that a last digit may depend on the machine's BLAS.
    assert sum(after) / 2 == pytest.approx(totals["dice_quantized"], abs=0.005)


def test_the_test_bench_passes(folder: Path) -> None:
    assert "OK" in run(["make", "test"], folder / "build/brain").stdout


def test_the_c_example_compiles(folder: Path) -> None:
    (folder / "firmware.c").write_text(blocks("c")[0])
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Ibuild/brain"]
    run(["gcc", *flags, "-c", "firmware.c"], folder)


def test_the_toml_example_is_understood(folder: Path) -> None:
    (folder / "layers.toml").write_text(blocks("toml")[0])
    model = "examples/brain/brain_unet.onnx"
    command = [sys.executable, "-m", "qcompile.cli", model]
    run([*command, "--config", "layers.toml", "-o", "build/configured"], folder)
    plan = (folder / "build/configured/plan.toml").read_text()
    assert 'wbits = "8"' in plan


def test_the_simulator_example_passes(folder: Path) -> None:
    run(compile_command(next(block for block in blocks("sh") if "--target sim" in block)), folder)
    accelerator = (
        "\n\ndef my_accelerator(pixels, name):\n"
        "    network = qcompile.load('build/brain-sim/network.qnet.npz')\n"
        "    return network.run(pixels, taps=[name])[name]\n"
        "\n\ntest_my_accelerator_agrees()\n"
    )
    run([sys.executable, "-c", blocks("python")[0] + accelerator], folder)


def test_the_python_example_runs(folder: Path) -> None:
    done = run([sys.executable, "-c", blocks("python")[1]], folder)
    assert len(done.stdout.split()) == 2


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that must succeed, run in `folder` with our sources on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done
