"""Incremental quantization: what is frozen, that it stays, and that runs go on where they were."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from qcompile import compile_model
from qcompile.cli import run
from qcompile.config import resolve
from qcompile.errors import UsageError
from qcompile.passes.quantizers.pow2 import exponent_count
from qcompile.passes.weight_quantizers import quantize_rows
from qcompile.plan import Format, Quantizer
from qcompile.result import CompileResult
from qcompile.train import loop
from qcompile.train.incremental_weights import IncrementalWeights
from qcompile.train.portions import Portions, parse_portions
from qcompile.types import Array
from tests.train.toy import write_data, write_model

SHARES = "50,75,87.5,100"


def pow2_format(bits: int) -> Format:
    return Format(bits, quantizer=Quantizer.POW2)


@pytest.fixture
def toy(tmp_path: Path) -> list[str]:
    """The first arguments of a run."""
    model, data = write_model(tmp_path / "toy.onnx"), write_data(tmp_path / "data.npz")
    flags = ["--quantizer", "pow2", "--abits", "32", "--batch", "4", "--patience", "0"]
    return ["finetune", str(model), "--data", str(data), "--workers", "1", "-q", *flags]


def epochs_of(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "history.json").read_text())["epochs"]
    return found


def compiled(folder: Path) -> CompileResult:
    data = str(folder.parent / "data.npz")
    plan = {"config": folder / "plan.toml", "data": data, "target": "sim", "workers": 1}
    return compile_model(folder / "model.onnx", resolve(plan))


@pytest.mark.parametrize("bits", [5, 7])
def test_frozen_weights_stay(bits: int) -> None:
    """The largest are frozen first, to the codes of the compiler's quantizer; whatever the others
    become, neither they nor the set of powers change. What has grown beyond becomes the largest."""
    rng = np.random.default_rng(1)
    start = rng.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
    weights = IncrementalWeights(start, pow2_format(bits))
    expected = quantize_rows(start.reshape(4, -1), pow2_format(bits)).reals().reshape(start.shape)
    assert np.array_equal(weights.grid(torch.from_numpy(start)).numpy(), expected)

    def inside(data: Array) -> Array:
        return np.asarray(weights(torch.from_numpy(data)))

    assert np.array_equal(inside(start), start)
    weights.freeze(torch.from_numpy(start), 0.5)
    largest = np.argsort(-np.abs(start).reshape(-1), kind="stable")[:54]
    frozen = np.isin(np.arange(start.size), largest).reshape(start.shape)
    assert np.array_equal(inside(start), np.where(frozen, expected, start))
    moved = (start + rng.normal(0, 0.5, start.shape)).astype(np.float32)
    assert np.array_equal(inside(moved), np.where(frozen, expected, moved))
    weights.freeze(torch.from_numpy(moved), 0.75)
    known = inside(moved)[weights.frozen.numpy()]
    assert known.size == 81
    weights.freeze(torch.from_numpy(moved), 1.0)
    final = inside(start)
    assert np.array_equal(final[frozen], expected[frozen])
    assert set(known.tolist()) <= set(final.reshape(-1).tolist())
    top = math.floor(math.log2(4 * float(np.abs(start).max()) / 3))
    exponents = np.log2(np.abs(final[final != 0]))
    assert exponents.max() == top
    assert exponents.min() > top - exponent_count(bits)
    assert np.array_equal(exponents, np.rint(exponents))


def test_gradients_are_of_the_free_weights() -> None:
    start = torch.tensor([0.9, -0.6, 0.2, 0.1])
    weights = IncrementalWeights(start.numpy(), pow2_format(5))
    weights.freeze(start, 0.5)
    trained = start.clone().requires_grad_()
    weights(trained).sum().backward()
    assert trained.grad is not None
    assert trained.grad.tolist() == [0, 0, 1, 1]


def test_stages() -> None:
    portions = parse_portions(SHARES)
    assert portions == Portions((0.5, 0.75, 0.875, 1.0))
    assert portions is not None
    assert portions.text() == SHARES
    for epochs in range(4, 20):
        stages = [portions.stage(epoch, epochs) for epoch in range(1, epochs + 1)]
        lengths = np.bincount(stages, minlength=4)
        assert max(lengths) - min(lengths) <= 1
        firsts = [1 + stages.index(stage) for stage in range(4)]
        assert [portions.first_epoch(stage, epochs) for stage in range(5)] == [*firsts, epochs + 1]


@pytest.mark.parametrize("text", ["50,40,100", "50,75", "0,100", "50,50,100", "50,nan,100", "110"])
def test_portions_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--portions"):
        parse_portions(text)


@pytest.mark.parametrize("bits", [5, 7])
def test_the_command(toy: list[str], tmp_path: Path, bits: int) -> None:
    """Codes of one stage are those of the next; the compiler finds the grid, and the Dice of the
    training."""
    out = tmp_path / "out"
    weights: list[dict[str, torch.Tensor]] = []
    finish = loop.Training._finish_epoch

    def watched(self: loop.Training, number: int, loss: float | None) -> None:
        finish(self, number, loss)
        buffers = self.network.module.named_buffers()
        weights.append({name: item.clone() for name, item in buffers})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "_finish_epoch", watched)
        flags = ["--wbits", str(bits), "--portions", SHARES, "--epochs", "8", "--lr", "0.02"]
        assert run([*toy, *flags, "-o", str(out)]) == 0
    masks = [name for name in weights[0] if name.endswith(".frozen")]
    assert masks
    for name in masks:
        codes = name.replace(".frozen", ".codes")
        shares = [float(state[name].float().mean()) for state in weights]
        assert shares[::2] == pytest.approx([0, 0.5, 0.75, 0.875, 1], abs=0.01)
        assert shares[1::2] == shares[2::2]
        for before, after in itertools.pairwise(weights):
            kept = before[name]
            assert torch.equal(before[codes][kept], after[codes][kept])
    epochs = epochs_of(out)
    assert [item["frozen"] for item in epochs] == [0, *np.repeat([0.5, 0.75, 0.875, 1], 2)]
    history = json.loads((out / "history.json").read_text())
    best = history["best_epoch"]
    assert best in (7, 8)
    assert "87.5 %" in (out / "curves.svg").read_text()
    result = compiled(out)
    assert result.report.evaluation is not None
    assert result.report.evaluation.dice_quantized == epochs[best]["dice"]
    row = next(row for row in result.report.layers if row.name == "conv2")
    # What is stored is what occurs: few weights do not reach all 32 powers of 7 bits.
    assert row.weight_bits is not None
    assert row.weight_format == f"pow2 {row.weight_bits} bit, exact"
    assert row.weight_bits <= bits


def test_resume(toy: list[str], tmp_path: Path) -> None:
    """Interrupted in the middle of a stage and resumed: the same network, to the last bit."""
    flags = ["--wbits", "5", "--portions", "40,80,100", "--epochs", "6"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run([*toy, *flags, "-o", str(whole)]) == 0
    step, steps = loop.Training._step, []

    def interrupted(self: loop.Training, batch: object) -> float:
        steps.append(batch)
        if len(steps) == 14:
            raise KeyboardInterrupt
        return step(self, batch)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "_step", interrupted)
        assert run([*toy, *flags, "-o", str(cut)]) == 130
    assert run([*toy, *flags, "-o", str(cut), "--resume"]) == 0
    assert epochs_of(cut) == epochs_of(whole)
    for name in ("model.onnx", "plan.toml"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--portions", "50,25,100"], "must rise"),
        (["--portions", "50,75"], "end with 100"),
        (["--portions", "half"], "not a list of percentages"),
        (["--portions", SHARES, "--epochs", "3"], "--epochs 4 or more"),
        (["--portions", SHARES, "--quantizer", "dorefa"], "add --quantizer pow2"),
        (["--portions", SHARES, "--quantizer", "scaled"], "add --quantizer pow2"),
    ],
    ids=lambda item: "-".join(item).replace("--", "") if isinstance(item, list) else "",
)
def test_contradictions(
    toy: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    assert run([*toy, *flags, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--quantizer", "dorefa", "--wbits", "4"],
        ["--quantizer", "twn"],
        ["--quantizer", "pow2", "--wbits", "7"],
    ],
    ids=lambda flags: flags[1],
)
def test_weights_only(toy: list[str], tmp_path: Path, flags: list[str]) -> None:
    """Without portions: the compiled network has the Dice of the training. It may be above that of
    the float network, which is no error."""
    out = tmp_path / "out"
    more = ["--epochs", "6", "--lr", "0.02", "-o", str(out)]
    assert run([*toy, *flags, *more]) == 0
    history = json.loads((out / "history.json").read_text())
    dice = history["epochs"][history["best_epoch"]]["dice"]
    assert dice > history["dice_float"]
    evaluation = compiled(out).report.evaluation
    assert evaluation is not None
    assert evaluation.dice_quantized == dice
