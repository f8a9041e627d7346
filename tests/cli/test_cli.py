from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcompile.output
from qcompile.cli import run
from qcompile.errors import VerificationError

FLAGS = (
    "--target --wbits --abits --quantizer --first-last-bits --output --calib --input-shape "
    "--input-scale --input-mean --input-std --data --metric-threshold --min-dice --max-dice-drop "
    "--prune --config --verify --dump-ir --list-passes --list-ops --report --entry --seed "
    "--verbose --quiet --version --output-kind --data-keys --device --clock --target-fps "
    "--multipliers --fold --fifos --synth --list-devices --mean-wbits --max-bytes --max-bops "
    "--max-arena --max-luts --max-ram-bits --scheduler --search-cache --mcu --taps "
    "--energy-table --measure"
)


def save_model(path: Path) -> Path:
    """A network that marks bright blobs: blur, ReLU, one output channel."""
    generator = np.random.default_rng(1)
    first = np.full((4, 1, 3, 3), 1 / 9) + generator.normal(0, 0.01, (4, 1, 3, 3))
    weights = {
        "w1": first.astype(np.float32),
        "b1": np.zeros(4, np.float32),
        "w2": np.full((1, 4, 1, 1), 2.0, np.float32),
        "b2": np.full(1, -4.0, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "w2", "b2"], ["output"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 16, 16])],
        [numpy_helper.from_array(data, name) for name, data in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "blobs.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(2)
    labels = np.zeros((6, 32, 16), np.uint8)
    for label in labels:
        row, column = generator.integers(0, 22), generator.integers(0, 8)
        label[row : row + 8, column : column + 6] = 1
    images = np.where(labels, 220, 40) + generator.integers(-20, 20, labels.shape)
    path = tmp_path / "data.npz"
    np.savez(path, train_x=images[:4].astype(np.uint8), val_x=images.astype(np.uint8), val_y=labels)
    return path


def compile_sim(*arguments: object) -> int:
    return run([*map(str, arguments), "--target", "sim"])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }


def test_help_answers_at_once_and_names_every_flag() -> None:
    """Nothing that takes long to import is imported for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qcompile.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert all(line.startswith("import time:") for line in lines)
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert "click" in imported
    assert not imported & {"numpy", "onnx", "networkx", "jinja2", "amaranth", "torch", "rich"}
    for flag in FLAGS.split():
        assert flag in done.stdout


def test_version_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("qcompile ")
    assert run(["--list-ops"]) == 0
    operators = capsys.readouterr().out
    assert "ConvTranspose\n" in operators
    assert re.search("^ConstantOfShape +of constants only$", operators, re.MULTILINE)
    assert run(["--list-passes"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    wanted = ["fold-affine", "prune-filters", "calibrate", "lower-to-integer", "plan-buffers"]
    assert [name for name in names if name in wanted] == wanted
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)
    assert run(["--list-devices"]) == 0
    assert "ecp5-85k     LFE5U-85F-6, 83640 LUT4, 208 x 18 Kbit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ([], "Missing argument"),
        (["none.onnx"], "no such file"),
        (["{model}", "--target", "rtl"], "'rtl' is no target"),
        (["{model}", "--wbits", "9"], "--wbits: '9' is no width"),
        (["{model}", "--abits", "x"], "--abits: 'x' is no width"),
        (["{model}", "--quantizer", "dorefax"], "--quantizer"),
        (["{model}", "--nonsense"], "--nonsense"),
        (["{model}", "--input-shape", "1,1,8,8"], "NAME=1,1,256,256"),
        (["{model}", "--input-shape", "other=1,1,16,16"], "other"),
        (["{model}", "--input-scale", "a"], "--input-scale"),
        (["{model}", "--input-std", "0"], "--input-std"),
        (["{model}", "--calib", "none.npz"], "--calib none.npz: no such file"),
        (["{model}", "--data", "none.npz"], "--data none.npz: no such file"),
        (["{model}", "--data-keys", "a"], "IMAGES,LABELS"),
        (["{model}", "--min-dice", "0.5"], "need --data"),
        (["{model}", "--min-dice", "5", "--data", "{model}"], "out of range"),
        (["{model}", "--prune", "1"], "is no ratio"),
        (["{model}", "--config", "none.toml"], "cannot be read"),
        (["{model}", "--entry", "a-b"], "no usable C name"),
        (["{model}", "-o", "{model}"], "is no folder"),
        (["{model}", "-o", "{model}/deep"], "is no folder"),
        (["{model}", "--report", "."], "is a folder"),
        (["{model}", "--dump-ir", "{model}"], "is a file"),
        (["."], "is a folder"),
        (["{model}", "--config", "/dev/zero"], "is not a regular file"),
        (["{model}", "--calib", "/dev/zero"], "is not a regular file"),
        (["{model}", "--data", "/dev/zero"], "is not a regular file"),
        (["{model}", "--entry", "string"], "standard header or build target"),
        (["{model}", "--quantizer", "ternary", "--wbits", "4"], "contradictory"),
        (["{model}", "--device", "ecp5-85k"], "--device: is for --target hdl only"),
        (["{model}", "--target", "hdl", "--device", "ecp5"], "'ecp5' is unknown; did you mean"),
        (["{model}", "--target", "hdl", "--fold", "none.toml"], "--fold none.toml: no such file"),
        (["{model}", "--target", "hdl", "--synth"], "--synth: needs --device"),
        (["{model}", "--target", "sim", "--mcu"], "--mcu: is for --target c only"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    fragment: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([item.replace("{model}", str(model)) for item in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qcompile: error: ")
    assert captured.err.count("\n") == 1
    assert fragment in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["blobs.onnx"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08\x12" * 50])
def test_files_that_are_no_models(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / '"; system("x"); //\x1b[31m.onnx'.replace("/", "_")
    bad.write_bytes(content)
    assert compile_sim(bad, "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "\x1b" not in captured.err
    assert not (tmp_path / "out").exists()


def test_a_whole_run(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    code = compile_sim(
        model, "--calib", data, "--data", data, "-o", out, "--report", tmp_path / "r.json",
        "--dump-ir", tmp_path / "ir", "--wbits", "4", "--abits", "6", "--min-dice", "0.5",
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.err == ""
    assert "\x1b" not in captured.out
    assert max(map(len, captured.out.splitlines())) <= 110
    for text in ("conv1", "head", "Dice", "class 1", "parameters", "8 calibration inputs"):
        assert text in captured.out
    document = json.loads((out / "report.json").read_text())
    assert document["totals"]["parameters"] == 4 * 9 + 4 + 4 + 1
    assert document["totals"]["dice_float"] > 0.9
    assert document["dice"]["images"] == 6
    assert document["warnings"] == []
    assert (tmp_path / "r.json").read_bytes() == (out / "report.json").read_bytes()
    assert {"report.json", "report.md", "plan.toml", "timings.json"} <= set(os.listdir(out))
    assert not [name for name in os.listdir(out) if name.startswith(".")]
    assert list((tmp_path / "ir").glob("*.txt"))
    for content in files_of(out).values():
        assert str(tmp_path).encode() not in content


def test_without_calibration_it_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_sim(model, "-o", tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert "accuracy was not assured" in captured.err
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "accuracy was not assured" in document["warnings"][0]
    assert document["calibration"]["source"] == "generated"
    assert document["totals"]["dice_float"] is None


def test_quiet_prints_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_sim(model, "-o", tmp_path / "out", "-q") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("bits", ["8", "32"])
def test_networks_that_overflow_are_refused(
    bits: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = onnx.load(model)
    weights = np.full((4, 1, 3, 3), 3e38, np.float32)
    network.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    onnx.save(network, model)
    out = tmp_path / "out"
    assert compile_sim(model, "-o", out, "--wbits", bits, "--abits", bits) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "Conv 'conv1': values reach" in captured.err
    assert not out.exists()


def test_weights_near_zero_leave_standard_error_clean(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = onnx.load(model)
    for place, value in ((0, 1e-40), (1, 0.0), (2, 0.0)):
        tensor = network.graph.initializer[place]
        data = np.full(tuple(tensor.dims), value, np.float32)
        tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))
    onnx.save(network, model)
    assert compile_sim(model, "-o", tmp_path / "out") == 0
    assert capfd.readouterr().err.count("\n") == 1  # that there was no --calib


def test_dumps_are_written_when_a_later_stage_fails(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[[layer]]\nname = "nobody"\nwbits = 4\n')
    dumps = tmp_path / "ir"
    code = compile_sim(model, "-o", tmp_path / "out", "--config", config, "--dump-ir", dumps)
    assert code == 2
    assert "matches no operator" in capsys.readouterr().err
    names = sorted(path.name for path in dumps.iterdir())
    assert names[0] == "00-start.txt"
    assert names[-1].endswith("-drop-no-ops.txt")
    assert not (tmp_path / "out").exists()


def test_verbose_names_stages_and_passes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_sim(model, "-o", tmp_path / "out", "-v") == 0
    said = capsys.readouterr().err
    assert "qcompile: info: calibrate: 0." in said
    assert "pass fold-affine" not in said
    assert compile_sim(model, "-o", tmp_path / "out", "-vv") == 0
    assert "qcompile: debug: pass fold-affine: 3 operators" in capsys.readouterr().err


def test_default_output_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compile_sim(model, "-q") == 0
    assert (tmp_path / "blobs-qcompile" / "report.json").exists()


def test_two_processes_write_the_same_bytes(model: Path, data: Path, tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        subprocess.run(
            [
                sys.executable, "-m", "qcompile.cli", str(model), "--target", "sim", "-q",
                "--calib", str(data), "--data", str(data), "-o", str(tmp_path / name),
            ],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": name[0].replace("o", "1").replace("t", "2")},
        )  # fmt: skip
        outputs.append(files_of(tmp_path / name))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    "flags", [[], ["--wbits", "ternary", "--abits", "4"], ["--quantizer", "fixed"]]
)
def test_a_plan_of_nearest_codes_reproduces_the_run_without_images(
    flags: list[str], model: Path, data: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    nearest = ("--effort", "nearest", "--calib", data)
    assert compile_sim(model, *flags, *nearest, "-o", first, "-q") == 0
    assert run([str(model), "--config", str(first / "plan.toml"), "-o", str(second), "-q"]) == 0
    for name in ("plan.toml", "network.qnet.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert json.loads((second / "report.json").read_text())["calibration"]["source"] == "plan"


def test_a_plan_reproduces_the_run_with_its_images(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert compile_sim(model, "--wbits", "3", "--calib", data, "-o", first, "-q") == 0
    again = [str(model), "--config", str(first / "plan.toml"), "-q"]
    assert run([*again, "--calib", str(data), "-o", str(second)]) == 0
    for name in ("plan.toml", "network.qnet.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    # Its scales are those of a network that was equalised with images.
    assert run([*again, "-o", str(third)]) == 2
    assert "--effort normal needs images" in capsys.readouterr().err
    assert not third.exists()


def test_the_plan_remembers_float_inputs(model: Path, data: Path, tmp_path: Path) -> None:
    floats = tmp_path / "floats.npy"
    np.save(floats, np.load(data)["val_x"].astype(np.float32) / 255)
    first, second = tmp_path / "first", tmp_path / "second"
    nearest = ("--effort", "nearest", "--calib", floats)
    assert compile_sim(model, *nearest, "-o", first, "-q") == 0
    assert json.loads((first / "report.json").read_text())["model"]["inputs"][0]["element"] == (
        "float32"
    )
    assert run([str(model), "--config", str(first / "plan.toml"), "-o", str(second), "-q"]) == 0
    assert (first / "network.qnet.npz").read_bytes() == (second / "network.qnet.npz").read_bytes()


@pytest.mark.parametrize(
    ("gate", "fragment"),
    [(("--min-dice", "1"), "--min-dice 1"), (("--max-dice-drop", "0"), "--max-dice-drop 0")],
)
def test_gates_fail_with_4_after_the_output_is_written(
    gate: tuple[str, str],
    fragment: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = [model, "--calib", data, "--data", data, "-o", out, "--wbits", "2", "--abits", "2"]
    code = compile_sim(*arguments, "--first-last-bits", "2", *gate)
    captured = capsys.readouterr()
    if code == 0:
        difference = json.loads((out / "report.json").read_text())["totals"]["dice_difference"]
        pytest.skip(f"this network loses nothing even at two bits ({difference})")
    assert code == 4
    assert fragment in captured.err
    assert (out / "report.json").exists()
    assert "Dice" in captured.out


def raising(error: BaseException) -> Callable[..., Any]:
    def stub(*_: object, **__: object) -> Any:
        raise error

    return stub


@pytest.mark.parametrize(
    ("error", "code", "fragment"),
    [
        (VerificationError("C and simulator differ at x"), 3, "differ at x"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left"),
    ],
)
def test_exit_codes_of_errors(
    error: BaseException,
    code: int,
    fragment: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import qcompile.pipeline

    monkeypatch.setattr(qcompile.pipeline, "compile_model", raising(error))
    assert compile_sim(model, "-o", tmp_path / "out") == code
    captured = capsys.readouterr()
    assert fragment in captured.err
    assert captured.err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    qcompile.output.write_files(out, {"a.txt": "old", "mine.txt": "mine"})
    monkeypatch.setattr(Path, "write_bytes", raising(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        qcompile.output.write_files(out, {"a.txt": "new", "sub/b.txt": "new"})
    monkeypatch.undo()
    assert files_of(out) == {"a.txt": b"old", "mine.txt": b"mine"}
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "mine.txt"]
    qcompile.output.write_files(out, {"a.txt": "new", "sub/b.txt": b"new"})
    assert files_of(out) == {"a.txt": b"new", "mine.txt": b"mine", "sub/b.txt": b"new"}


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\b", ""])
def test_no_file_leaves_the_output_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no path inside"):
        qcompile.output.write_files(tmp_path / "out", {name: "x"})
    assert not (tmp_path / "out").exists()


def test_the_table_fits_80_columns(model: Path, tmp_path: Path) -> None:
    from io import StringIO

    from qcompile.options import CompileOptions, Target
    from qcompile.pipeline import compile_model
    from qcompile.report.table import print_report

    result = compile_model(model, CompileOptions(target=Target.SIM))
    for width in (80, 100, 160, 200):
        stream = StringIO()
        print_report(result.report, stream, width)
        assert max(map(len, stream.getvalue().splitlines())) <= width
        assert "conv1" in stream.getvalue()
