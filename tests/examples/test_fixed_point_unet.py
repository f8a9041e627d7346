"""The fixed-point U-Net: the network that was published, its formats, and the quick form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch

from qcompile.errors import UsageError
from qcompile.train.float_network import export_onnx
from tests.examples.scripts import EXAMPLES, load_script
from tests.train.toy import write_data

SCRIPT = EXAMPLES / "fixed_point_unet/fixed_point_unet.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def float_unet() -> ModuleType:
    return load_script(SCRIPT.with_name("float_unet.py"))


def test_network(script: ModuleType, float_unet: ModuleType, tmp_path: Path) -> None:
    """At base width 64 it has the parameters of the publication; norms stay behind the ReLU."""
    published = float_unet.FixedPointUNet(1, 2, 64)
    assert sum(item.numel() for item in published.parameters()) == 4_837_249
    small = float_unet.FixedPointUNet(3, 3, 2, "nearest", seed=1)
    assert small(torch.zeros(2, 3, 16, 24)).shape == (2, 3, 16, 24)
    path = tmp_path / "small.onnx"
    path.write_bytes(export_onnx(small, (1, 3, 16, 24)))
    nodes = onnx.load(path).graph.node
    kinds = [node.op_type for node in nodes if node.op_type != "Identity"]
    assert kinds[:6] == ["Conv", "Relu", "BatchNormalization"] * 2
    assert kinds.count("BatchNormalization") == 14
    formats = tomllib.loads(script.formats_file(path, script.SWEEP[2]))["layer"]
    assert [item["name"] for item in formats] == ["/down.0/down.0.0/Conv", "/down.0/down.0.3/Conv"]
    assert all(item["wbits"] == 8 for item in formats)


def test_settings(script: ModuleType) -> None:
    found = script.settings_of("2/4,8/8", [3, 1])
    assert [(item.name, item.epochs) for item in found] == [("w2a4", 3), ("w8a8", 1)]
    with pytest.raises(UsageError, match="'3/3' is unknown"):
        script.settings_of("8/8,3/3", [])
    with pytest.raises(UsageError, match="one for each of 8/8, 4/6"):
        script.settings_of("8/8,4/6", [1, 2, 3])
    with pytest.raises(UsageError, match="use 0"):
        script.settings_of("8/8", [-1])


def test_exposure(float_unet: ModuleType) -> None:
    """Each image has a factor of its own; saturated pixels stay at 255."""
    images = {"image": torch.tensor([10.0, 200.0]).expand(64, 1, 2, 2)}
    labels = torch.zeros(64, 2, 2, dtype=torch.int64)
    augment = float_unet.Exposed(frozenset(), stops=1.0)
    found, _ = augment(images, labels, torch.Generator().manual_seed(0), True)
    dark, bright = found["image"][:, 0, 0].unbind(1)
    assert ((dark >= 5) & (dark <= 20)).all()
    assert dark.min() < 6
    assert dark.max() > 18
    torch.testing.assert_close(bright, (20 * dark).clamp(max=255))


def test_errors(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    missing = ["--data", str(tmp_path / "none.npz"), "--out", str(out)]
    assert script.run(missing) == 2
    assert "no such file" in capsys.readouterr().err
    data = write_data(tmp_path / "data.npz")
    odd = ["--data", str(data), "--out", str(out), "--tile", "12"]
    assert script.run(odd) == 2
    assert "multiples of 8" in capsys.readouterr().err
    assert script.run([*odd, "--seed", "1"]) == 2
    assert "results with another seed (0, now 1)" in capsys.readouterr().err


def quick(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--quick", "--workers", "1", "--threads", "1", *arguments]
    texts = [str(item) for item in command]
    return subprocess.run(texts, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_quick(tmp_path: Path, upsampling: str) -> None:
    """All of it runs, learns something, and does not run twice."""
    data, out = write_data(tmp_path / "data.npz"), tmp_path / "out"
    flags = ["--data", data, "--out", out, "--upsampling", upsampling]
    first = quick(*flags, "--settings", "4/6", "--epochs", "0")
    assert first.returncode == 0, first.stderr
    shutil.move(out / "w4a6", tmp_path / "untrained")
    done = quick(*flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "results.json").read_text())
    assert [(row["wbits"], row["abits"]) for row in rows] == [(16, 16), (8, 8), (4, 6), (2, 4)]
    assert all(row["verified"] for row in rows)
    assert rows[0]["dice_float"] > 0.4
    assert abs(rows[0]["dice"] - rows[0]["dice_float"]) < 0.02
    untrained = json.loads((tmp_path / "untrained" / "c" / "report.json").read_text())["totals"]
    for row in rows:
        assert row["dice_float"] == pytest.approx(untrained["dice_float"], abs=1e-6)
        kept = max(row["dice_before_training"], row["dice_last_epoch"])  # one epoch
        assert row["dice"] == pytest.approx(kept, abs=1e-6)
    assert untrained["dice_quantized"] == pytest.approx(rows[2]["dice_before_training"], abs=1e-6)
    nominal = [row["bytes_nominal"] for row in rows]
    assert nominal == sorted(nominal, reverse=True)
    assert "| 4 | 6 |" in (out / "table.md").read_text()
    written = (out / "w2a4" / "c" / "report.json").stat().st_mtime_ns
    again = quick(*flags)
    assert again.returncode == 0
    assert "$ qcompile" not in again.stdout
    assert (out / "w2a4" / "c" / "report.json").stat().st_mtime_ns == written
