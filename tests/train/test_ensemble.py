"""Ensembles on bootstrap samples: what is drawn, files, going on after an interruption."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompile import compile_model
from qcompile.cli import run
from qcompile.config import resolve
from qcompile.errors import DataError, UsageError
from qcompile.suggest.ensemble_file import ENSEMBLE_FILE, find_members
from qcompile.train.curves import Epoch
from qcompile.train.ensemble import Task, Trained, bootstrap_sample, train_ensemble
from qcompile.train.options import TrainOptions
from tests.train.toy import SIZE, write_data, write_model


def quiet(stage: str, done: int, total: int) -> None:
    pass


class Recorder:
    """Trains nothing: a model is the text of its task."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.tasks: list[Task] = []
        self.breaks_at = breaks_at

    def __call__(self, task: Task) -> Trained:
        if len(self.tasks) == self.breaks_at:
            raise KeyboardInterrupt
        self.tasks.append(task)
        text = f"{task.drawn} {task.options.seed}"
        return Trained(text.encode(), "# plan\n", 0.5, (Epoch(1, 0.25, 0.5),))


def test_bootstrap_samples_are_drawn_with_replacement() -> None:
    drawn = bootstrap_sample(1000, 3, 1)
    assert len(drawn) == 1000
    assert set(drawn) < set(range(1000))
    assert 0.6 < len(set(drawn)) / 1000 < 0.66  # 1 - 1/e
    assert drawn == bootstrap_sample(1000, 3, 1)
    others = [bootstrap_sample(1000, 3, 2), bootstrap_sample(1000, 4, 1)]
    assert len({drawn, *others}) == 3


def test_every_member_has_its_own_task(tmp_path: Path) -> None:
    recorder = Recorder()
    train_ensemble(tmp_path, 3, 20, TrainOptions(seed=5), recorder, {"data": "x"}, quiet)
    for member, task in enumerate(recorder.tasks, start=1):
        assert task.drawn == bootstrap_sample(20, 5, member)
        assert sorted({*task.drawn, *task.left_out}) == list(range(20))
        assert not set(task.drawn) & set(task.left_out)
    assert len({task.options.seed for task in recorder.tasks}) == 3
    table = json.loads((tmp_path / ENSEMBLE_FILE).read_text(encoding="utf-8"))
    assert [row["images"] for row in table["members"]] == [list(t.drawn) for t in recorder.tasks]
    assert [(item.model.name, item.plan) for item in find_members([tmp_path])] == [
        (f"member-{member}.onnx", tmp_path / f"member-{member}.toml") for member in (1, 2, 3)
    ]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    options = TrainOptions(resume=True, seed=2)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(tmp_path / "a", 3, 9, options, Recorder(2), {}, quiet)
    assert not (tmp_path / "a" / ENSEMBLE_FILE).exists()
    rest = Recorder()
    train_ensemble(tmp_path / "a", 3, 9, options, rest, {}, quiet)
    assert [task.drawn for task in rest.tasks] == [bootstrap_sample(9, 2, 3)]
    train_ensemble(tmp_path / "b", 3, 9, options, Recorder(), {}, quiet)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_resume_all_are_trained_anew(tmp_path: Path) -> None:
    for _ in range(2):
        recorder = Recorder()
        train_ensemble(tmp_path, 2, 9, TrainOptions(), recorder, {}, quiet)
        assert len(recorder.tasks) == 2


def test_other_options_do_not_go_on(tmp_path: Path) -> None:
    train_ensemble(tmp_path, 2, 9, TrainOptions(), Recorder(), {"data": "x"}, quiet)
    for options, settings, name in (
        (TrainOptions(resume=True, epochs=9), {"data": "x"}, "--epochs 40"),
        (TrainOptions(resume=True), {"data": "y"}, "data x"),
        (TrainOptions(resume=True, seed=1), {"data": "x"}, "--seed 0"),
    ):
        with pytest.raises(UsageError, match=f"was made with {name}, now it is"):
            train_ensemble(tmp_path, 2, 9, options, Recorder(), settings, quiet)


@pytest.mark.parametrize("damage", ["{", "[]", '{"settings": {}}', '{"sha256": 3, "settings": 1}'])
def test_damaged_descriptions(tmp_path: Path, damage: str) -> None:
    options = TrainOptions(resume=True)
    train_ensemble(tmp_path, 2, 9, options, Recorder(), {}, quiet)
    (tmp_path / "member-2.json").write_text(damage, encoding="utf-8")
    with pytest.raises(DataError, match="does not fit the files beside it"):
        train_ensemble(tmp_path, 2, 9, options, Recorder(), {}, quiet)


def test_a_model_that_was_changed_is_noticed(tmp_path: Path) -> None:
    options = TrainOptions(resume=True)
    train_ensemble(tmp_path, 2, 9, options, Recorder(), {}, quiet)
    (tmp_path / "member-1.onnx").write_bytes(b"other")
    with pytest.raises(DataError, match="does not fit"):
        train_ensemble(tmp_path, 2, 9, options, Recorder(), {}, quiet)


@pytest.mark.parametrize(("members", "images"), [(1, 9), (101, 9), (2, 1)])
def test_too_few_or_too_many(tmp_path: Path, members: int, images: int) -> None:
    with pytest.raises(UsageError):
        train_ensemble(tmp_path / "out", members, images, TrainOptions(), Recorder(), {}, quiet)
    assert not (tmp_path / "out").exists()


SMALL = ("--members", "2", "--base", "4", "--depth", "2", "--epochs", "2", "--batch", "4")


def train(tmp_path: Path, out: str, *flags: str) -> dict[str, Any]:
    data = tmp_path / "data.npz"
    if not data.exists():
        write_data(data, 8, 3)
    given = ["ensemble", "--data", str(data), "-o", str(tmp_path / out), "-q", "--lr", "0.01"]
    assert run([*given, "--device", "cpu", *flags]) == 0
    return dict(json.loads((tmp_path / out / ENSEMBLE_FILE).read_text(encoding="utf-8")))


def test_unets_from_the_command_line(tmp_path: Path) -> None:
    table = train(tmp_path, "one", *SMALL)
    assert [row["plan"] for row in table["members"]] == [None, None]
    assert all(0 <= row["dice"] <= 1 for row in table["members"])
    models = [tmp_path / "one" / f"member-{at}.onnx" for at in (1, 2)]
    assert models[0].read_bytes() != models[1].read_bytes()
    train(tmp_path, "two", *SMALL)
    for model in models:
        assert model.read_bytes() == (tmp_path / "two" / model.name).read_bytes()
    pool = str(tmp_path / "data.npz")
    out = tmp_path / "suggested"
    flags = ["--pool", pool, "--count", "2", "-q", "-o", str(out)]
    assert run(["suggest", "--models", str(tmp_path / "one"), *flags]) == 0
    found = json.loads((out / "suggestions.json").read_text(encoding="utf-8"))
    # The bottom of a U-Net: 4 channels, doubled twice; 4x4 pixels for each position.
    assert [(m["feature_channels"], m["feature_stride"]) for m in found["members"]] == [
        (16, 16)
    ] * 2


def test_members_with_formats_have_plans_that_compile_without_images(tmp_path: Path) -> None:
    table = train(tmp_path, "out", *SMALL, "--wbits", "4", "--abits", "6", "--format-epochs", "1")
    assert [row["plan"] for row in table["members"]] == ["member-1.toml", "member-2.toml"]
    for member in find_members([tmp_path / "out"]):
        result = compile_model(member.model, resolve({"config": member.plan}))
        assert (result.options.wbits, result.options.abits) == ("4", "6")


def test_a_given_network_is_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("qcompile"), "propagate", True)
    model = write_model(tmp_path / "start.onnx")
    table = train(tmp_path, "out", "--model", str(model), "--members", "2", "--epochs", "3")
    assert [row["plan"] for row in table["members"]] == [None, None]
    models = [tmp_path / "out" / f"member-{at}.onnx" for at in (1, 2)]
    assert models[0].read_bytes() != models[1].read_bytes()
    assert not caplog.records


def test_pieces_of_images(tmp_path: Path) -> None:
    table = train(tmp_path, "out", *SMALL, "--size", "8,12")
    assert table["settings"]["network"] == "U-Net 4 2 [1, 1, 8, 12]"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--members", "1"), "--members 1: use 2 to 100"),
        (("--size", "7x7"), "--size: '7x7' is no size"),
        (("--size", "10,16"), "images of 10x16 pixels cannot be halved 4 times"),
        (("--depth", "0"), "use 1 to 1024 channels, 1 to 8 levels"),
        (("--format-epochs", "3"), "--format-epochs 3: use 1 or more, and --wbits"),
        (("--epochs", "0"), "--epochs: 0 is too small"),
        (("--val", "gone.npz"), "--val gone.npz: no such file"),
        (("--model", "gone.onnx"), "gone.onnx: no such file"),
        (("--data", "gone.npz"), "--data gone.npz: no such file"),
    ],
)
def test_bad_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    data = write_data(tmp_path / "data.npz", 4, 2)
    out = tmp_path / "out"
    assert run(["ensemble", "--data", str(data), "-o", str(out), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("qcompile: error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_masks_with_many_numbers_are_no_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((3, SIZE, SIZE), np.uint8)
    np.savez(tmp_path / "data.npz", x=images, y=images + 200)
    assert run(["ensemble", "--data", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out")]) == 2
    assert "the masks have class 200" in capsys.readouterr().err
