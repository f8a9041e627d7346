"""`--mcu` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qcompile.backends.c.footprint import COMPILER
from qcompile.cli import run
from tests.cli.test_cli import save_model

TARGETS = ("hdl", "sim", "qdq", "qcdq", "qonnx")


def compiled(folder: Path, *flags: str) -> tuple[dict[str, object], str]:
    """The footprint in the report of a run on a small network, and its plan."""
    model = save_model(folder / "blobs.onnx")
    out = folder / "out"
    assert run([str(model), "--wbits", "4", "--abits", "6", *flags, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    return report["footprint"], (out / "plan.toml").read_text()


def test_the_report_has_flash_and_ram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, plan = compiled(tmp_path, "--mcu")
    assert "mcu = true" in plan
    assert found["code_bytes"] is found["stack_bytes"] is found["compiler"] is None
    assert found["flash_bytes"] == found["constant_bytes"]
    assert found["ram_bytes"] == found["arena_bytes"]
    # One channel of 16 x 16 pixels in, as many floats out.
    assert (found["input_bytes"], found["output_bytes"]) == (256, 1024)
    assert "constants alone" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
def test_code_and_stack_are_measured(tmp_path: Path) -> None:
    found, _ = compiled(tmp_path, "--mcu")
    code, stack = found["code_bytes"], found["stack_bytes"]
    assert isinstance(code, int)
    assert isinstance(stack, int)
    assert 500 < code < 20_000
    assert 100 < stack < 4_000
    assert found["flash_bytes"] == found["constant_bytes"] + code
    assert found["ram_bytes"] == found["arena_bytes"] + stack


def test_without_the_flag_nothing_is_measured(tmp_path: Path) -> None:
    found, plan = compiled(tmp_path)
    assert found is None
    assert "mcu = true" not in plan


def test_a_file_of_options_may_ask_for_it(tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text("[options]\nmcu = true\n")
    assert compiled(tmp_path, "--config", str(tmp_path / "options.toml"))[0] is not None


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_for_c_alone(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "blobs.onnx")
    assert run([str(model), "--mcu", "--target", target]) == 2
    assert f"--mcu: is for --target c only, not for --target {target}" in capsys.readouterr().err


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_a_file_must_say_true_or_false(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "blobs.onnx")
    (tmp_path / "options.toml").write_text(f"[options]\nmcu = {value}\n")
    assert run([str(model), "--config", str(tmp_path / "options.toml")]) == 2
    assert "mcu" in capsys.readouterr().err
