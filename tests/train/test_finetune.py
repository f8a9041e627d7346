"""`qcompile finetune` from its command line: what it writes, and that it goes on where it was."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from pathlib import Path

import numpy as np
import pytest
import torch

from qcompile import compile_model
from qcompile.cli import run
from qcompile.config import resolve
from qcompile.train import loop
from qcompile.train.samples import Batch
from tests.train.toy import SIZE, discs, write_data, write_model


@pytest.fixture
def toy(tmp_path: Path) -> list[str]:
    """The first arguments of a run."""
    model, data = write_model(tmp_path / "toy.onnx"), write_data(tmp_path / "data.npz")
    return ["finetune", str(model), "--data", str(data), "--workers", "1", "-q"]


def history(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "history.json").read_text())
    return found


def test_it_learns_and_compiles(toy: list[str], tmp_path: Path) -> None:
    """First in floats, from chance, then with signs for weights. The compiled network has the Dice
    that was found in training, without calibration."""
    floats, signs = tmp_path / "floats", tmp_path / "signs"
    flags = ["--wbits", "32", "--abits", "32", "--epochs", "10", "--patience", "0", "--lr", "0.03"]
    assert run([*toy, *flags, "--batch", "2", "--augment", "flips", "-o", str(floats)]) == 0
    model = floats / "model.onnx"
    flags = ["--wbits", "binary", "--abits", "ternary", "--first-last-bits", "2", "--epochs", "8"]
    flags += ["--lr", "0.01", "--batch", "2", "-o", str(signs)]
    assert run(["finetune", str(model), *toy[2:], *flags]) == 0
    found = history(signs)
    dices = [row["dice"] for row in found["epochs"]]  # type: ignore[index]
    best = found["best_epoch"]
    assert dices[best] == max(dices) > dices[0] + 0.3
    plan = {"config": signs / "plan.toml", "data": toy[3], "target": "sim", "workers": 1}
    result = compile_model(signs / "model.onnx", resolve(plan))
    assert result.report.calibration == "plan"
    assert result.report.totals.dice_quantized == pytest.approx(dices[best], abs=1e-6)
    Xml.fromstring((signs / "curves.svg").read_text())


@pytest.mark.parametrize(
    "flags",
    [
        ["--wbits", "ternary", "--quantizer", "twn"],
        ["--wbits", "binary", "--abits", "ternary"],
        ["--wbits", "5", "--quantizer", "pow2"],
        ["--wbits", "4", "--abits", "4", "--quantizer", "dorefa"],
        ["--wbits", "4", "--abits", "6", "--quantizer", "fixed", "--distill", "0.5"],
        ["--wbits", "4", "--abits", "6", "--quantizer", "fxp-paper", "--fixed-scales"],
        ["--wbits", "4", "--abits", "4", "--effort", "fast", "--first-last-bits", "4"],
        ["--wbits", "3", "--abits", "32", "--boundary", "2", "--class-weights", "balanced"],
    ],
    ids=lambda flags: "-".join(flags).replace("--", ""),
)
def test_formats(toy: list[str], tmp_path: Path, flags: list[str]) -> None:
    out = tmp_path / "out"
    assert run([*toy, *flags, "--epochs", "1", "-o", str(out)]) == 0
    result = compile_model(
        out / "model.onnx", resolve({"config": out / "plan.toml", "target": "sim"})
    )
    assert result.report.calibration == "plan"


def test_one_logit_and_a_mixed_plan(tmp_path: Path) -> None:
    model = write_model(tmp_path / "toy.onnx", channels=1)
    data = write_data(tmp_path / "data.npz")
    config = tmp_path / "mixed.toml"
    config.write_text('[[layer]]\nname = "conv2"\nwbits = "ternary"\nabits = 3\n')
    out = tmp_path / "out"
    flags = ["--config", str(config), "--epochs", "2", "--workers", "1", "-q", "-o", str(out)]
    assert run(["finetune", str(model), "--data", str(data), *flags]) == 0
    assert 'wbits = "ternary"' in (out / "plan.toml").read_text()


def test_resume(toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted within an epoch and resumed: the same network, to the last bit."""
    flags = ["--epochs", "4", "--batch", "5", "--wbits", "4", "--abits", "4"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run([*toy, *flags, "-o", str(whole)]) == 0
    step, steps = loop.Training._step, []

    def interrupted(self: loop.Training, batch: object) -> float:
        steps.append(batch)
        if len(steps) == 10:
            raise KeyboardInterrupt
        return step(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_step", interrupted)
        assert run([*toy, *flags, "-o", str(cut)]) == 130
    assert not (cut / "model.onnx").exists()
    assert run([*toy, *flags, "-o", str(cut), "--resume"]) == 0
    assert history(cut)["epochs"] == history(whole)["epochs"]
    for name in ("model.onnx", "plan.toml"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_patience(toy: list[str], tmp_path: Path) -> None:
    """A rate that moves nothing never improves: the network from before the training is kept."""
    out = tmp_path / "out"
    flags = ["--epochs", "9", "--lr", "1e-9", "--fixed-scales", "--patience", "2", "-o", str(out)]
    assert run([*toy, *flags]) == 0
    found = history(out)
    assert len(found["epochs"]) == 3  # type: ignore[arg-type]
    assert found["best_epoch"] == 0


def test_short_epochs(toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--epoch-steps`: so many steps, on other images in each epoch; longer ones are not made."""
    step, labels = loop.Training._step, []

    def seen(self: loop.Training, batch: Batch) -> float:
        labels.append(batch.labels)
        return step(self, batch)

    monkeypatch.setattr(loop.Training, "_step", seen)
    flags = ["--epochs", "2", "--batch", "4", "--augment", "none", "-o", str(tmp_path / "out")]
    assert run([*toy, *flags, "--epoch-steps", "2"]) == 0
    assert len(labels) == 4
    first, second = torch.cat(labels[:2]), torch.cat(labels[2:])
    assert not all((first == mask).all(dim=(1, 2)).any() for mask in second)
    labels.clear()
    assert run([*toy, *flags, "--epoch-steps", "9"]) == 0
    assert len(labels) == 8


def test_split(toy: list[str], tmp_path: Path) -> None:
    """Without validation data every fifth image is kept back."""
    images, masks = discs(10, 3)
    data, out = tmp_path / "plain.npz", tmp_path / "out"
    np.savez(data, x=images, y=masks)
    assert run([*toy[:3], str(data), *toy[4:], "--epochs", "1", "-o", str(out)]) == 0
    settings = history(out)["settings"]
    assert settings["training images"] == 8  # type: ignore[index]


def fails(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_errors(toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "out"), "--epochs", "1"]
    fails([*toy[:2], *toy[4:]], "give images and labels to train on", capsys)
    fails([*toy, "--augment", "mirrors"], "'mirrors' is unknown", capsys)
    fails([*toy, "--epochs", "0"], "--epochs: 0 is too small", capsys)
    fails([*toy, "--epoch-steps", "-1"], "--epoch-steps: -1 is too small", capsys)
    fails([*toy, "--lr", "nan"], "is no learning rate", capsys)
    fails([*toy, "--data", "nowhere.npz"], "--data nowhere.npz: no such file", capsys)
    fails([*toy, "--val", "nowhere.npz"], "--val nowhere.npz: no such file", capsys)
    fails([*toy, *out, "--class-weights", "1,2,3"], "is not 2 numbers", capsys)
    if not torch.cuda.is_available():
        fails([*toy, *out, "--device", "cuda"], "torch finds no CUDA device", capsys)
    other = tmp_path / "other.npz"
    np.savez(other, pictures=np.zeros((3, SIZE, SIZE), np.uint8))
    fails([*toy[:3], str(other), *toy[4:], *out], "has none of the pairs", capsys)
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=discs(6, 1)[0], y=5 * discs(6, 1)[1])
    fails([*toy[:3], str(wrong), *toy[4:], *out], "the labels have class 5", capsys)


def test_resume_errors(toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    flags = ["-o", str(out), "--epochs", "1"]
    assert run([*toy, *flags]) == 0
    fails([*toy, *flags, "--resume", "--lr", "0.1"], "was made with --lr", capsys)
    (out / "checkpoint.pt").write_bytes(b"no such thing")
    fails([*toy, *flags, "--resume"], "is no checkpoint of qcompile", capsys)
    torch.save({"format": 1, "settings": Path("/")}, out / "checkpoint.pt")
    fails([*toy, *flags, "--resume"], "is no checkpoint of qcompile", capsys)


def test_without_torch(
    toy: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fails(toy, "pip install 'qcompile[train]'", capsys)
