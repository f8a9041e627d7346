"""Flags about data from the command line: volumes, folders, windows, halos, and wrong values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from qcompile.cli import run
from qcompile.config import load_config, resolve
from qcompile.data_options import (
    DiceOver,
    EmptyDice,
    MaskValues,
    Window,
    WindowKind,
    parse_halo,
    parse_slices,
    parse_window,
)
from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from tests.data.networks import pooled_unet, save
from tests.data.volumes import SPACING, blob, patient, save_nifti, save_series


def bright(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Hounsfield units with a bright ball in each volume, and its mask: [right, front, head]."""
    generator = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    centre = np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    mask = (((at - centre) / centre) ** 2).sum(0) < 0.3
    values = np.where(mask, 200, -60) + generator.normal(0, 20, shape)
    return values.astype(np.int16), mask.astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(pooled_unet, tmp_path / "net.onnx")


def compiled(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    out = tmp_path / "out"
    assert run([*map(str, arguments), "--target", "sim", "-o", str(out)]) == 0
    document: dict[str, Any] = json.loads((out / "report.json").read_text())
    return document


def test_volumes_from_two_formats(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.data.volumes.SIZE", (24, 32, 4))
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    for seed, name in enumerate(("p1", "p2")):
        values, mask = bright((24, 32, 4), seed)
        if name == "p1":
            save_series(tmp_path / "images" / name, values, intercept=-1024)
        else:
            save_nifti(tmp_path / "images" / f"{name}.nii.gz", values, "LPS")
        save_nifti(tmp_path / "masks" / f"{name}_seg.nii", mask, "RAS")
    arguments = (
        model, "--input-shape", "input=1,1,16,16", "--window", "-160,240", "--tile-halo", "auto",
        "--calib", tmp_path / "images", "--images", tmp_path / "images", "--masks",
        tmp_path / "masks", "--dice-over", "case", "--empty-dice", "skip", "--object-metrics",
    )  # fmt: skip
    with_halo = (*arguments[:2], "input=1,1,48,48", *arguments[3:])
    document = compiled(tmp_path, *with_halo)
    said = " ".join(capsys.readouterr().out.split())
    dice = document["dice"]
    assert (dice["images"], dice["cases"]) == (8, ["p1", "p2"])
    assert dice["tiles"]["exact"]
    assert document["model"]["inputs"][0]["element"] == "uint8"
    scores = dice["classes"][0]["quantized"]
    assert len(scores["per_image"]) == 8
    assert len(scores["per_case"]) == 2
    assert document["totals"]["dice_quantized"] == scores["case_mean"]
    assert "class 1, cases" in said
    assert "objects 1, Hausdorff" in said
    assert "means over 8 images (slices) of 2 cases; images whose mask lacks a class" in said
    assert "totals and gates: cases" in said
    assert "tiles with a halo of" in said
    assert document["options"]["window"] == "-160,240"
    assert document["options"]["dice_over"] == "case"
    assert "equal to whole images" in (tmp_path / "out" / "report.md").read_text()
    assert str(tmp_path) not in json.dumps(document)
    assert run([*map(str, arguments), "--target", "sim", "-o", str(tmp_path / "o2")]) == 2
    assert "leave nothing of a tile of 16" in capsys.readouterr().err
    assert SPACING[2] == 2


def test_whole_volumes_for_networks_of_three_axes(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    weights = generator.normal(0, 0.2, (2, 1, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["input", "w"], ["output"], "conv", pads=[1] * 6)
    shape = [1, 1, 4, 8, 6]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, 4, 8, 6])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "n.onnx"))
    image = save_nifti(tmp_path / "i.nii", patient())
    mask = save_nifti(tmp_path / "m.nii", blob(), "LSA")
    given = ("--window", "p1,p99", "--calib", image, "--images", image, "--masks", mask)
    document = compiled(tmp_path, tmp_path / "n.onnx", *given)
    assert document["dice"]["images"] == 1
    assert document["calibration"]["images"] == 1
    assert document["dice"]["cases"] is None


def test_folders_of_pictures_with_a_gate(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        values, mask = bright((32, 32), seed)
        Image.fromarray((values + 100).clip(0, 255).astype(np.uint8)).save(
            tmp_path / "images" / f"{seed}.png"
        )
        Image.fromarray(mask * 255).save(tmp_path / "masks" / f"{seed}_mask.png")
    arguments = [
        str(model), "--calib", str(tmp_path / "images"), "--images", str(tmp_path / "images"),
        "--masks", str(tmp_path / "masks"), "--target", "sim", "-q",
    ]  # fmt: skip
    assert run([*arguments, "-o", str(tmp_path / "a")]) == 0
    document = json.loads((tmp_path / "a" / "report.json").read_text())
    assert document["dice"]["cases"] is None
    assert document["dice"]["classes"][0]["float"]["iou_mean"] is not None
    assert run([*arguments, "-o", str(tmp_path / "b"), "--min-dice", "1"]) == 4
    assert "is below --min-dice" in capsys.readouterr().err
    Image.fromarray(np.zeros((32, 30), np.uint8)).save(tmp_path / "masks" / "1_mask.png")
    assert run([*arguments, "-o", str(tmp_path / "c")]) == 2
    said = capsys.readouterr().err
    assert "mask 1_mask.png: is 32x30 where its image 1.png is 32x32" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": "a"}, "--images: needs --masks"),
        ({"masks": "a"}, "--masks: needs --images"),
        ({"images": "a", "masks": "b", "data": "c"}, "both name the data"),
        ({"window": "5"}, "'5' is no window"),
        ({"window": "1,2,3"}, "is no window"),
        ({"window": "p1,99"}, "is no window"),
        ({"window": "nan,1"}, "is no window"),
        ({"window": "9,-9"}, "is empty or out of range"),
        ({"window": "p1,p101"}, "is empty or out of range"),
        ({"slices": "3"}, "--slices: '3' is unknown"),
        ({"slices": "SPI"}, "is unknown"),
        ({"slices": "AXIALLY"}, "is unknown"),
        ({"slices": "²"}, "is unknown"),
        ({"tile_halo": "-1"}, "--tile-halo: '-1' is no halo"),
        ({"tile_halo": "full"}, "is no halo"),
        ({"tile_halo": "²"}, "is no halo"),
        ({"tile_halo": "99999999999"}, "is no halo"),
        ({"empty_dice": "none"}, "'none' is unknown; use one, zero, skip"),
        ({"dice_over": "patient"}, "use image, case, pooled"),
        ({"mask_values": "rgb"}, "use auto, index, binary, instances"),
        ({"metric_threshold": 2.0}, "--metric-threshold: 2.0 is out of range"),
        ({"metric_threshold": float("nan")}, "--metric-threshold"),
    ],
)
def test_wrong_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("²", ".")):
        CompileOptions(**fields)


def test_values_have_a_meaning() -> None:
    assert parse_window("p0.5, p99.5") == Window(WindowKind.PERCENTILES, 0.5, 99.5)
    assert parse_window("-160,240") == Window(WindowKind.LEVELS, -160, 240)
    assert parse_window("raw") == Window(WindowKind.RAW)
    assert (parse_slices("coronal"), parse_slices("lip"), parse_slices("1")) == ("PIL", "LIP", 1)
    assert (parse_halo("auto"), parse_halo("12")) == (None, 12)
    options = CompileOptions(images=Path("a"), masks="b", tile_halo=8, empty_dice="skip")  # type: ignore[arg-type]
    assert (options.images, options.tile_halo) == ("a", "8")
    assert options.empty_dice is EmptyDice.SKIP
    assert options.has_evaluation
    with pytest.raises(UsageError, match="need --data"):
        CompileOptions(min_dice=0.5)


def test_the_same_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[options]\nimages = "i"\nmasks = "m"\nwindow = "p1,p99"\nslices = "axial"\n'
        'tile_halo = 16\nempty_dice = "zero"\ndice_over = "pooled"\nmask_values = "binary"\n'
        "object_metrics = true\n"
    )
    fields = load_config(path)
    assert fields["images"] == str(tmp_path / "i")
    options = resolve({"config": path, "dice_over": DiceOver.CASE})
    assert (options.masks, options.tile_halo) == (str(tmp_path / "m"), "16")
    assert (options.dice_over, options.empty_dice) == (DiceOver.CASE, EmptyDice.ZERO)
    assert options.mask_values is MaskValues.BINARY
    assert options.object_metrics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('empty_dice = "x"', "'x' is unknown; use one, zero, skip"),
        ("object_metrics = 1", "must be true or false"),
        ("window = 5", "must be text"),
        ("tile_halo = true", "must be"),
        ('data_keys = ["a", "b", "c", "d"]', "the keys of the images"),
    ],
)
def test_wrong_values_in_a_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[options]\n{text}\n")
    with pytest.raises(UsageError, match=message):
        resolve({"config": path})


@pytest.mark.parametrize("flag", ["--images", "--masks"])
def test_files_that_do_not_exist(
    flag: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "--masks" if flag == "--images" else "--images"
    code = run([str(model), flag, str(tmp_path / "none"), other, str(tmp_path)])
    assert code == 2
    assert f"{flag} {tmp_path / 'none'}: no such file or folder" in capsys.readouterr().err
