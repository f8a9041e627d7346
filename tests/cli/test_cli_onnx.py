"""ONNX targets from the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qcompile.cli import run
from qcompile.exporter import ExportedModel, export_model
from tests.exporter.networks import images, small_unet

pytest.importorskip("onnxruntime")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    onnx.save(small_unet(), str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "calib.npz", x=images())
    calib = f"{tmp_path / 'calib.npz'}:x"
    given = ["--calib", calib, "--effort", "nearest", "-o", str(tmp_path / "out")]
    return [str(tmp_path / "net.onnx"), *given]


@pytest.mark.parametrize("target", ["qdq", "qcdq", "qonnx"])
def test_a_whole_run(
    target: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--target", target, "--wbits", "4", "--abits", "6", "--verify"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "verified in onnxruntime: each operator by itself gives the simulator's codes" in out
    assert "codes of the whole model's output differ" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.onnx", "report.json", "report.md", "plan.toml"} <= written
    onnx.load(str(tmp_path / "out" / "model.onnx"))


def test_the_plan_repeats_the_model_without_calibration(
    arguments: list[str], tmp_path: Path
) -> None:
    chosen = ["--target", "qdq", "--wbits", "4", "--onnx-weights", "int4", "--entry", "net"]
    assert run([*arguments, *chosen, "-q"]) == 0
    plan, again = tmp_path / "out" / "plan.toml", tmp_path / "again"
    model = str(tmp_path / "net.onnx")
    calib = arguments[arguments.index("--calib") + 1]
    assert run([model, "--config", str(plan), "--calib", calib, "-q", "-o", str(again)]) == 0
    first = (tmp_path / "out" / "net.onnx").read_bytes()
    assert (again / "net.onnx").read_bytes() == first
    # For another target the plan is good, too; what is about ONNX is left out.
    simulator = ["--target", "sim", "-q", "-o", str(tmp_path / "sim")]
    assert run([model, "--config", str(plan), *simulator]) == 0


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (["--target", "c", "--onnx-weights", "int4"], "--onnx-weights: is for --target qdq"),
        (["--target", "sim", "--onnx-input", "uint8"], "--onnx-input: is for --target qdq"),
        (["--target", "qonnx", "--onnx-weights", "int4"], "is for --target qdq only"),
        (
            ["--target", "qdq", "--onnx-input", "uint8", "--input-kind", "float32"],
            "the network takes floats",
        ),
        (["--target", "qdq", "--onnx-input", "pixels"], "'pixels' is not one of"),
        (["--target", "tflite"], "use one of c, hdl, sim, qdq, qcdq, qonnx"),
        (["--target", "qdq", "--clock", "50"], "--clock: is for --target hdl only"),
    ],
)
def test_wrong_usage(
    given: list[str],
    fragment: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*arguments, *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fragment in line
    assert not (tmp_path / "out").exists()


def test_a_wrong_model_is_exit_code_3(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import qcompile.target_onnx as target_onnx

    def exported(*given: Any, **options: Any) -> ExportedModel:
        model = export_model(*given, **options)
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        for node in proto.graph.node:
            if node.name == "mid/add":
                node.op_type = "Mul"
        return dataclasses.replace(model, proto=proto)

    monkeypatch.setattr(target_onnx, "export_model", exported)
    assert run([*arguments, "--target", "qcdq", "--verify", "-q"]) == 3
    assert "the ONNX model differs at Add 'mid/add'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
