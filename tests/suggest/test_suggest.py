"""Pools in which it is known what is to be annotated, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qcompile.cli import run
from qcompile.suggest.ensemble_file import ENSEMBLE_FILE, ensemble_text
from tests.suggest.planted import CHANNELS, SIZE, ensemble, pool, probabilities, save_member
from tests.train.toy import discs, write_model

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
WEIGHTS = (0.0, 3.0, 6.0)
DOUBTS = (10, 90, 80, 70, 20, 60, 50, 30)
KINDS = (RED, RED, GREEN, RED, GREEN, GREEN, BLUE, RED)
"""Four red images, three green ones and a blue one."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    ensemble(tmp_path, WEIGHTS)
    np.savez(tmp_path / "pool.npz", x=pool(DOUBTS, KINDS))
    return tmp_path


def ask(place: Path, *flags: str, models: tuple[str, ...] = ("m0", "m1", "m2")) -> dict[str, Any]:
    out = place / "out"
    given = ["--models", *(str(place / f"{name}.onnx") for name in models)]
    code = run(["suggest", *given, "--pool", str(place / "pool.npz"), "-o", str(out), "-q", *flags])
    assert code == 0
    return dict(json.loads((out / "suggestions.json").read_text(encoding="utf-8")))


def suggested(found: dict[str, Any]) -> list[int]:
    return [row["index"] for row in found["suggested"]]


def test_the_largest_groups_come_first(place: Path) -> None:
    found = ask(place, "--count", "3", "--candidates", "8")
    # Of the red ones the most uncertain (1), of the green ones (2), then the blue one.
    assert suggested(found) == [1, 2, 6]
    gains = [row["gain"] for row in found["suggested"]]
    assert gains == [4.0, 3.0, 1.0]
    assert found["suggested"][-1]["cover"] == 8.0
    assert [row["features"] for row in found["members"]] == ["deep"] * 3


def test_uncertainty_is_the_deviation_of_the_members(place: Path) -> None:
    found = ask(place, "--count", "1")
    images = np.load(place / "pool.npz")["x"]
    for row in found["pool"]:
        said = [probabilities(images[row["index"]], weight) for weight in WEIGHTS]
        assert row["uncertainty"] == pytest.approx(float(np.std(said, axis=0).mean()), abs=1e-6)
    order = sorted(found["pool"], key=lambda row: -row["uncertainty"])
    assert [row["index"] for row in order] == [1, 2, 3, 5, 6, 7, 4, 0]


def test_only_the_most_uncertain_are_candidates(place: Path) -> None:
    found = ask(place, "--count", "2", "--candidates", "2")
    assert found["candidates"] == ["1", "2"]
    # The blue image (6) is fifth: among three candidates two are red.
    assert suggested(ask(place, "--count", "3", "--candidates", "4"))[:2] == [1, 2]
    assert 6 not in suggested(ask(place, "--count", "3", "--candidates", "4"))


def test_rounds_cover_what_is_left(place: Path) -> None:
    first = ask(place, "--count", "1", "--candidates", "8")
    assert suggested(first) == [1]
    shutil.copy(place / "out" / "suggestions.csv", place / "round-1.csv")
    second = ask(
        place, "--count", "2", "--candidates", "7", "--annotated", str(place / "round-1.csv")
    )
    assert second["annotated"] == ["1"]
    assert suggested(second) == [2, 6]
    (place / "old.txt").write_text("2\n\n6\n", encoding="utf-8")
    third = ask(
        place, "--count", "1", "--annotated", str(place / "round-1.csv"), "--annotated",
        str(place / "old.txt"),
    )  # fmt: skip
    # Nothing is left to cover: the most uncertain image.
    assert suggested(third) == [3]
    assert third["suggested"][0]["gain"] == 0


@pytest.mark.parametrize(
    "formats",
    [("--wbits", "8"), ("--wbits", "4", "--abits", "8"), ("--quantizer", "pow2", "--abits", "32")],
)
def test_integers_are_asked_where_formats_are_given(place: Path, formats: tuple[str, ...]) -> None:
    found = ask(place, "--count", "3", "--candidates", "8", *formats)
    assert suggested(found) == [1, 2, 6]
    assert all(row["formats"] != "float" for row in found["members"])
    floats = ask(place, "--count", "3")["pool"]
    assert found["pool"] != floats
    for row, other in zip(found["pool"], floats, strict=True):
        assert row["uncertainty"] == pytest.approx(other["uncertainty"], abs=0.02)


def test_two_classes_are_as_one(place: Path) -> None:
    floats = ask(place, "--count", "1")
    for at, weight in enumerate(WEIGHTS):
        save_member(place / f"two{at}.onnx", weight, classes=2)
    found = ask(place, "--count", "1", models=("two0", "two1", "two2"))
    for row, other in zip(found["pool"], floats["pool"], strict=True):
        assert row["uncertainty"] == pytest.approx(other["uncertainty"], abs=1e-6)


def test_equal_images_are_chosen_in_order_and_runs_repeat(place: Path) -> None:
    images = pool([40] * 12, [GREEN] * 12)
    images[:] = images[0]
    np.savez(place / "pool.npz", x=images)
    first = ask(place, "--count", "3")
    assert suggested(first) == [0, 1, 2]
    texts = [
        (place / "out" / name).read_bytes() for name in ("suggestions.csv", "suggestions.html")
    ]
    ask(place, "--count", "3", "--workers", "2")
    assert texts == [
        (place / "out" / name).read_bytes() for name in ("suggestions.csv", "suggestions.html")
    ]


def test_tiles_are_asked_one_by_one(place: Path) -> None:
    tile = pool([10, 90], [RED, BLUE])
    wide = np.concatenate([tile[0], tile[1]], axis=2)[None]
    np.savez(place / "pool.npz", x=np.concatenate([wide, wide[..., ::-1]]))
    found = ask(place, "--count", "1")
    said = [probabilities(wide[0], weight) for weight in WEIGHTS]
    assert found["pool"][0]["uncertainty"] == pytest.approx(np.std(said, axis=0).mean(), abs=1e-6)


def test_files_are_whole_and_stand_alone(place: Path) -> None:
    ask(place, "--count", "2")
    out = place / "out"
    rows = list(csv.DictReader((out / "suggestions.csv").open(encoding="utf-8")))
    assert [(row["rank"], row["index"]) for row in rows] == [("1", "1"), ("2", "2")]
    page = (out / "suggestions.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http-equiv", "")
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert pictures == ["001-image-1.png", "002-image-2.png"]
    with Image.open(out / "pictures" / pictures[0]) as picture:
        assert picture.mode == "RGB"
        assert picture.height == SIZE
        assert picture.width > 3 * SIZE
    assert len(list(out.iterdir())) == 4


def test_a_folder_of_an_ensemble_with_a_plan(place: Path) -> None:
    folder = place / "ensemble"
    folder.mkdir()
    for name in ("m0", "m1"):
        shutil.copy(place / f"{name}.onnx", folder)
    (folder / "m1.toml").write_text('[options]\nwbits = "4"\n', encoding="utf-8")
    members: list[dict[str, str | None]]
    members = [{"model": "m0.onnx", "plan": None}, {"model": "m1.onnx", "plan": "m1.toml"}]
    (folder / ENSEMBLE_FILE).write_text(ensemble_text(members, {}), encoding="utf-8")
    for given in (folder, folder / ENSEMBLE_FILE):
        flags = ["suggest", "--models", str(given), "--pool", str(place / "pool.npz")]
        assert run([*flags, "--count", "1", "-o", str(place / "out"), "-q"]) == 0
        found = json.loads((place / "out" / "suggestions.json").read_text(encoding="utf-8"))
        assert [row["formats"] for row in found["members"]] == ["float", "scaled W4/A8"]


def test_pictures_in_a_folder_have_names(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    for name, image in zip("abc", discs(3, 1)[0], strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    write_model(tmp_path / "one.onnx", seed=1)
    write_model(tmp_path / "two.onnx", seed=2)
    (tmp_path / "done.txt").write_text("b\n", encoding="utf-8")
    code = run(
        ["suggest", str(tmp_path / "one.onnx"), str(tmp_path / "two.onnx"), "--pool", str(folder),
         "--count", "2", "--annotated", str(tmp_path / "done.txt"), "-o", str(tmp_path / "out"),
         "-q"]
    )  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "out" / "suggestions.json").read_text(encoding="utf-8"))
    assert {row["image"] for row in found["suggested"]} == {"a.png", "c.png"}
    assert found["annotated"] == ["b.png"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--count", "0"), "--count 0: nothing to choose"),
        (("--count", "9"), "--count 9: the pool has 8 images without labels"),
        (("--count", "3", "--candidates", "2"), "--candidates 2: fewer than --count 3"),
        (("--count", "1", "--features", "no"), "--features 'no': does not exist in 'planted'"),
        (("--count", "1", "--annotated", "gone.csv"), "--annotated gone.csv: no such file"),
        (("--count", "1", "--wbits", "77"), "--wbits"),
        (("--count", "1", "--config", "gone.toml"), "--config"),
    ],
)
def test_bad_flags(
    place: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    refused(place, capsys, message, *flags)


def refused(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    *flags: str,
    models: tuple[str, ...] = ("m0.onnx", "m1.onnx"),
    images: str = "pool.npz",
) -> None:
    given = [str(place / name) for name in models]
    out = place / "out"
    assert run(["suggest", *given, "--pool", str(place / images), "-o", str(out), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("qcompile: error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_bad_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ("--count", "1")
    refused(place, capsys, "1 network(s); disagreement takes at least 2", *one, models=("m0.onnx",))
    refused(place, capsys, "no such file", *one, models=("m0.onnx", "gone.onnx"))
    refused(place, capsys, "--models: give two or more", *one, models=())
    refused(place, capsys, "the networks agree on every pixel", *one, models=("m0.onnx", "m0.onnx"))
    refused(place, capsys, "no such file or folder", *one, images="gone.npz")
    empty = place / "empty"
    empty.mkdir()
    refused(place, capsys, f"has no {ENSEMBLE_FILE} and no .onnx", *one, models=("empty",))
    (empty / ENSEMBLE_FILE).write_text("{", encoding="utf-8")
    refused(place, capsys, "is no JSON", *one, models=("empty",))
    for members, message in (
        ([], "0 network(s)"),
        ([{"model": "../m0.onnx"}], "'../m0.onnx' is no name of a file beside it"),
        ([{"model": "m9.onnx"}], "names 'm9.onnx', which is not there"),
        ([{"model": 3}], "'3' is no name"),
        (["m0.onnx"], "'members' is no list of tables"),
    ):
        text = json.dumps({"format": "qcompile ensemble", "version": 1, "members": members})
        (empty / ENSEMBLE_FILE).write_text(text, encoding="utf-8")
        refused(place, capsys, message, *one, models=("empty",))
    save_member(place / "deeper.onnx", 1.0, deep=6)
    refused(
        place, capsys, "deeper.onnx describes images by numbers: 6 where m0.onnx has 3", *one,
        models=("m0.onnx", "deeper.onnx"),
    )  # fmt: skip
    save_member(place / "three.onnx", 1.0, classes=3)
    refused(
        place, capsys, "three.onnx tells apart classes: 3 where m0.onnx has 2", *one,
        models=("m0.onnx", "three.onnx"),
    )  # fmt: skip
    (place / "list.txt").write_text("99\n", encoding="utf-8")
    refused(place, capsys, "'99' is not in the pool", *one, "--annotated", str(place / "list.txt"))
    (place / "list.csv").write_text("name\n1\n", encoding="utf-8")
    refused(place, capsys, "has no column 'image'", *one, "--annotated", str(place / "list.csv"))
    (place / "list.json").write_text("[1]", encoding="utf-8")
    refused(place, capsys, "has no list 'suggested'", *one, "--annotated", str(place / "list.json"))
    np.savez(place / "odd.npz", x=np.zeros((2, SIZE, SIZE + 1, CHANNELS), np.uint8))
    refused(place, capsys, "does not fit the network's input", *one, images="odd.npz")


def test_networks_that_compute_no_numbers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A logit beyond the largest float32; softmax takes the difference to itself.
    save_member(place / "one.onnx", 1.0, classes=2)
    save_member(place / "huge.onnx", 3e38, classes=2)
    np.savez(place / "huge.npz", x=np.full((1, CHANNELS, SIZE, SIZE), 1000, np.float32))
    message = "the networks compute no numbers (infinite or NaN) of image 0"
    models = ("one.onnx", "huge.onnx")
    refused(place, capsys, message, "--count", "1", models=models, images="huge.npz")


def test_torch_is_not_needed(place: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from qcompile.cli import run\n"
        f"sys.exit(run(['suggest', {str(place / 'm0.onnx')!r}, {str(place / 'm1.onnx')!r}, "
        f"'--pool', {str(place / 'pool.npz')!r}, '--count', '1', '-q', '-o', "
        f"{str(place / 'out')!r}]))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (place / "out" / "suggestions.csv").is_file()
