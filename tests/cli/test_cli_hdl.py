"""`--target hdl` from the command line: what may be asked for, and what is said of what may not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest

from qcompile.cli import run
from tests.backends.hdl_models import Net

MISSING = [tool for tool in ("make", "iverilog", "verilator") if shutil.which(tool) is None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of one level."""
    net = Net({"image": (1, 1, 4, 6)})
    skip = net.block("image", 4)
    x = net.block(net.pool(skip), 4)
    x = net.block(net.concat(net.up(x, 4), skip), 4)
    path = tmp_path_factory.mktemp("hdl") / "unet.onnx"
    onnx.save(net.model(net.conv(x, 2, 1)), str(path))
    return path


def compile_hdl(model: Path, folder: Path, *flags: object) -> int:
    arguments = (model, "--target", "hdl", "--wbits", "4", "--abits", "6", "-q", "-o", folder)
    return run([*map(str, arguments), *map(str, flags)])


def manifest(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / "manifest.json").read_text())
    return found


def refused(capsys: pytest.CaptureFixture[str], model: Path, folder: Path, *flags: object) -> str:
    """The one line of the error; nothing is left behind."""
    assert compile_hdl(model, folder, *flags) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("qcompile: error: ")
    assert "\n" not in error
    assert not folder.exists()
    return error


WRONG_FLAGS = {
    "rate out of reach": (("--target-fps", "1e9"), "216 cycles a frame at its most parallel"),
    "rate 0": (("--target-fps", "0"), "is no rate"),
    "no rate": (("--target-fps", "nan"), "is no rate"),
    "no multipliers": (("--multipliers", "0"), "more --multipliers"),
    "one multiplier": (("--multipliers", "1"), "more than the 1 there are at its least parallel"),
    "negative": (("--multipliers", "-1"), "out of range"),
    "no device": (("--device", "ecp5"), "did you mean ecp5"),
    "no name": (("--device", ""), "unknown"),
    "too few on the device": (("--device", "ice40-up5k"), "than the 8 there are"),
    "more than the device has": (
        ("--device", "ecp5-25k", "--multipliers", "29"),
        "ecp5-25k has 28, not 29",
    ),
    "clock": (("--clock", "0"), "out of range"),
    "nothing to synthesise for": (("--synth",), "needs --device"),
    "policy": (("--fifos", "none"), "is not one of"),
}


@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_wrong_flags(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, message = WRONG_FLAGS[case]
    assert message in refused(capsys, model, tmp_path / "out", *flags)


def table(name: str, pe: object, simd: object) -> bytes:
    return f'[[layer]]\nname = "{name}"\npe = {pe}\nsimd = {simd}\n'.encode()


WRONG_FILES = {
    "text": (b"garbage", "is not valid TOML"),
    "binary": (bytes(range(256)), "is not valid TOML"),
    "another layer": (table("/nope", 1, 1), "no layer has this name"),
    "no divisor": (table("/conv0", 3, 1), "pe 3 does not fit layer '/conv0'; use one of 1, 2, 4"),
    "negative": (table("/conv0", -1, 1), "pe is -1"),
    "zero": (table("/conv0", 1, 0), "simd is 0"),
    "fraction": (table("/conv0", 1.5, 1), "pe is 1.5"),
    "truth": (table("/conv0", "true", 1), "pe is True"),
    "enormous": (table("/conv0", 10**30, 1), "does not fit layer '/conv0'"),
    "no number": (b'[[layer]]\nname = "/conv0"\n', "pe is missing"),
    "no list": (b"layer = 3\n", "must be a list of tables"),
    "another table": (b"[options]\n", "unknown 'options'"),
    "another key": (table("/conv0", 1, 1) + b"fold = 2\n", "unknown key 'fold'"),
    "pattern that does not fit": (table("/conv*", 4, 4), "'/conv*': simd 4 does not fit layer"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_fold_files(
    case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = WRONG_FILES[case]
    path = tmp_path / "fold.toml"
    path.write_bytes(content)
    error = refused(capsys, model, tmp_path / "out", "--fold", path)
    assert "--fold" in error
    assert message in error


def test_no_fold_file(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "no such file" in refused(capsys, model, out, "--fold", tmp_path / "none.toml")
    assert "is not a file" in refused(capsys, model, out, "--fold", tmp_path)


def test_foldings_of_a_file_with_too_many_multipliers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fold.toml"
    path.write_bytes(table("/conv7", 4, 8))
    error = refused(capsys, model, tmp_path / "out", "--fold", path, "--multipliers", 16)
    assert "with the foldings that were asked for" in error
    assert "smaller foldings in the file" in error


def test_a_written_folding_is_edited_and_given_back(model: Path, tmp_path: Path) -> None:
    """Another table behind the others counts more."""
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    assert compile_hdl(model, first, "--multipliers", 20) == 0
    text = (first / "fold.toml").read_text()
    names = [layer["name"] for layer in tomllib.loads(text)["layer"]]
    assert names[:2] == ["/conv0", "/maxpool2"]
    edited = tmp_path / "edited.toml"
    edited.write_text(text + table("/conv7", 4, 8).decode())
    assert compile_hdl(model, second, "--fold", edited) == 0
    assert 'name = "/conv7"\npe = 4\nsimd = 8\n' in (second / "fold.toml").read_text()
    assert manifest(second)["resources"]["multipliers"] > 20
    # What was written is what was used; the plan names it.
    assert run([str(model), "--config", str(second / "plan.toml"), "-q", "-o", str(third)]) == 0
    assert (third / "model.v").read_bytes() == (second / "model.v").read_bytes()


def test_a_rate_is_reached_with_as_little_as_possible(model: Path, tmp_path: Path) -> None:
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    assert compile_hdl(model, slow, "--target-fps", "1e-9") == 0
    assert compile_hdl(model, fast, "--target-fps", 40000, "--clock", 80) == 0
    assert manifest(fast)["performance"]["interval_cycles"] <= 80e6 / 40000
    assert manifest(slow)["performance"]["interval_cycles"] > 80e6 / 40000
    assert manifest(slow)["resources"]["multipliers"] < manifest(fast)["resources"]["multipliers"]


def test_fifos_as_shallow_as_can_be(model: Path, tmp_path: Path) -> None:
    small, deep = tmp_path / "small", tmp_path / "deep"
    assert compile_hdl(model, small, "--fifos", "minimum", "--verify") == 0
    assert compile_hdl(model, deep) == 0
    assert manifest(small)["resources"]["ram_bits"] < manifest(deep)["resources"]["ram_bits"]


def test_the_python_module_stands_alone(model: Path, tmp_path: Path) -> None:
    """As a user has it: the folder was moved, and only its module is imported."""
    folder = tmp_path / "moved"
    assert compile_hdl(model, tmp_path / "out", "--fifos", "minimum") == 0
    (tmp_path / "out").rename(folder)
    program = (
        "from model_hw import accelerator, top\n"
        "print(accelerator().signature.members['i0'])\n"
        "print(*top().signature.members)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "stream.Signature(ArrayLayout(unsigned(8), 1))" in done.stdout
    assert "s_axis_tdata" in done.stdout


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_make_in_the_folder(model: Path, tmp_path: Path) -> None:
    """Outputs of less than a byte, too: their port is no loop to Verilator."""
    folder = tmp_path / "out"
    assert compile_hdl(model, folder, "--first-last-bits", "ternary", "--entry", "net") == 0
    for target in ("lint", "sim"):
        done = subprocess.run(
            ["make", "-s", target], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: 2 frames" in done.stdout
