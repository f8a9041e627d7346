"""Pruning in steps: what each step removes, and that a run goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qcompile import compile_model
from qcompile.cli import run
from qcompile.config import resolve
from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from qcompile.prune_options import PruneMethod
from qcompile.train import loop
from qcompile.train.prune_steps import STATE, StepOptions, Stepwise
from qcompile.train.samples import Batch
from tests.train.toy import write_data, write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "toy.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


def test_amounts() -> None:
    flops = list(StepOptions(4, flops="20%").amounts(1000))
    assert [item["prune_flops"] for item in flops] == ["800", "600", "400", "200"]
    left = 1.0
    for step, item in enumerate(StepOptions(3, 0.6).amounts(1000), start=1):
        left *= 1 - item["prune"]
        assert left == pytest.approx(1 - 0.2 * step)


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"steps": 0, "ratio": 0.5}, "--steps: 0"),
        ({}, "either --prune RATIO or --prune-flops"),
        ({"ratio": 0.5, "flops": "50%"}, "either --prune RATIO or --prune-flops"),
        ({"ratio": 1.5}, "1.5 is no ratio"),
        ({"flops": "150%"}, "'150%' is no budget"),
    ],
)
def test_wrong_amounts(fields: dict[str, object], fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        StepOptions(**fields)  # type: ignore[arg-type]
    assert fragment in str(caught.value)


def test_steps_without_training(model: Path, data: Path, tmp_path: Path) -> None:
    """Each step starts from what the training of the one before returned."""
    options = CompileOptions(
        wbits="32",
        abits="32",
        data=str(data),
        calib=f"{data}:train_x",
        prune=0.5,
        prune_method=PruneMethod.TAYLOR,
    )
    plain = CompileOptions(wbits="32", abits="32", data=str(data))
    seen: list[tuple[str, bytes]] = []

    def train(pruned: Path, folder: Path) -> bytes:
        seen.append((folder.name, pruned.read_bytes()))
        return pruned.read_bytes()

    def stepwise(resume: bool, settings: dict[str, object]) -> Stepwise:
        steps = StepOptions(3, flops="40%")
        return Stepwise(
            model, options, plain, steps, tmp_path, train, settings, lambda *_: None, resume
        )

    rows = stepwise(False, {"a": 1}).run()
    assert [name for name, _ in seen] == ["step1", "step2", "step3"]
    assert rows[0].ratio == 0
    whole = rows[0].flops
    for row, share in zip(rows[1:], (0.8, 0.6, 0.4), strict=True):
        assert share * whole * 0.6 < row.flops <= share * whole
    assert [row.filters for row in rows] == sorted((row.filters for row in rows), reverse=True)
    assert (tmp_path / "model.onnx").read_bytes() == seen[-1][1]
    assert json.loads((tmp_path / "step1" / "prune-importance.json").read_text())
    # All is there: nothing is trained again. With a step missing, that step alone.
    assert stepwise(True, {"a": 1}).run() == rows
    assert len(seen) == 3
    state = json.loads((tmp_path / STATE).read_text())
    state["rows"].pop()
    (tmp_path / STATE).write_text(json.dumps(state))
    assert stepwise(True, {"a": 1}).run() == rows
    assert [name for name, _ in seen[3:]] == ["step3"]
    with pytest.raises(UsageError, match="had a 1, now it is 2"):
        stepwise(True, {"a": 2}).run()


def test_the_command_prunes_and_trains(
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It learns what it had not learned before, with half of the FLOPs; interrupted, it goes on."""
    out = tmp_path / "out"
    flags = ["--prune-flops", "50%", "--steps", "2", "--epochs", "12", "--patience", "0"]
    flags += ["--batch", "4", "--lr", "0.02", "--workers", "1"]
    arguments = ["prune", str(model), "--data", str(data), "-o", str(out), *flags]
    step = loop.Training._step
    left = [60]

    def interrupted(training: loop.Training, batch: Batch) -> float:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return step(training, batch)

    monkeypatch.setattr(loop.Training, "_step", interrupted)
    assert run(arguments) == 130
    assert run([*arguments, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "pruned and trained" in printed
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert rows[-1]["flops"] <= rows[0]["flops"] / 2
    assert rows[-1]["dice"][0] > rows[0]["dice"][0] + 0.5
    options = {"wbits": "32", "abits": "32", "data": str(data), "target": "sim", "workers": 1}
    result = compile_model(out / "model.onnx", resolve(options))
    assert result.report.totals.dice_quantized == pytest.approx(rows[-1]["dice"][0], abs=1e-6)
    whole = tmp_path / "whole"
    again = [str(whole) if item == str(out) else item for item in arguments]
    assert run([*again, "-q"]) == 0
    assert (whole / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--data", "{data}"], "either --prune RATIO or --prune-flops"),
        (["--prune", "0.5"], "--data: give images and labels"),
        (["--data", "{data}", "--prune"], "--prune: needs a ratio here"),
        (["--data", "{data}", "--prune", "0.5", "--steps", "0"], "--steps: 0 is too small"),
        (["--data", "{data}", "--prune", "0.5", "--val", "none.npz"], "none.npz: no such file"),
        (["--data", "{data}", "--prune-flops", "1"], "are left when all filters have gone"),
        (["--data", "{data}", "--prune", "0.5", "--class-weights", "1,2,3"], "is not 2 numbers"),
        (["--data", "{wrong}", "--prune", "0.5"], "label 0 has shape [8, 16]"),
        (["--data", "{unknown}", "--prune", "0.5"], "the labels have class 7"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(
    flags: list[str],
    fragment: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = dict(np.load(data))
    labels = arrays["train_y"]
    files = {"data": str(data)}
    for name, changed in (("wrong", labels[:, :8]), ("unknown", 7 * labels)):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **{**arrays, "train_y": changed})
        files[name] = str(path)
    given = [item.format(**files) for item in flags]
    out = tmp_path / "out"
    assert run(["prune", str(model), *given, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert fragment in error
    assert error.count("\n") == 1
    assert not out.exists()
