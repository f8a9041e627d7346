"""Pruning from the command line: one ratio, budgets, the search, and the sweep."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcompile.pruning
from qcompile import compile_model
from qcompile.cli import run
from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from qcompile.pruning import Trial
from qcompile.result import CompileResult

FILTERS = 12
SIZE = 16


def save_model(path: Path) -> Path:
    """Marks bright blobs with twelve blurs of different size, most of them hardly needed."""
    rng = np.random.default_rng(4)
    weights = np.zeros((FILTERS, 1, 3, 3), np.float32)
    weights[:] = (np.arange(FILTERS)[:, None, None, None] + 1) / 40
    weights += rng.normal(0, 0.002, weights.shape).astype(np.float32)
    constants = {
        "w1": weights,
        "b1": rng.normal(0, 0.01, FILTERS).astype(np.float32),
        "gamma": np.linspace(0.1, 1.2, FILTERS).astype(np.float32),
        "beta": np.zeros(FILTERS, np.float32),
        "mean": np.zeros(FILTERS, np.float32),
        "variance": np.linspace(0.2, 1.0, FILTERS).astype(np.float32),
        "w2": np.full((1, FILTERS, 1, 1), 0.5, np.float32),
        "b2": np.full(1, -3.2, np.float32),
    }
    norm = ["gamma", "beta", "mean", "variance"]
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *norm], ["n"], "norm1"),
        helper.make_node("Relu", ["n"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "w2", "b2"], ["output"], "head"),
    ]
    shape = [1, 1, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(data, name) for name, data in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "blobs.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    labels = np.zeros((6, SIZE, SIZE), np.uint8)
    for label in labels:
        row, column = rng.integers(0, 6), rng.integers(0, 8)
        label[row : row + 8, column : column + 6] = 1
    images = np.where(labels, 220, 40) + rng.integers(-20, 20, labels.shape)
    path = tmp_path / "data.npz"
    np.savez(path, train_x=images[:4].astype(np.uint8), val_x=images.astype(np.uint8), val_y=labels)
    return path


def compile_(model: Path, folder: Path, *flags: str) -> dict[str, Any]:
    arguments = [str(model), "--target", "sim", "-o", str(folder), *flags]
    assert run(arguments) == 0
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def filters(report: dict[str, Any]) -> list[int]:
    counts: list[int] = report["details"]["pruning"]["filters"]["conv1"]
    return counts


@pytest.mark.parametrize("method", ["l1", "l2", "bn", "error", "auto"])
def test_one_ratio(
    model: Path, data: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--prune", "0.25", "--prune-method", method, "--calib", str(data)]
    report = compile_(model, tmp_path / "out", *flags)
    assert filters(report) == [FILTERS, 9]
    assert "filters removed" in capsys.readouterr().out
    assert "| filters removed | 3 of 13 (ratio 0.25) |" in (tmp_path / "out/report.md").read_text()
    wanted = "error" if method == "auto" else method
    assert report["options"]["prune_method"] == wanted
    assert report["options"]["prune_refit"] is True


def test_budgets_and_multiples(model: Path, tmp_path: Path) -> None:
    half = compile_(model, tmp_path / "half", "--prune-flops", "50%")
    assert filters(half) == [FILTERS, 6]
    before, after = half["details"]["pruning"]["flops"]
    assert after <= before / 2
    report = compile_(model, tmp_path / "bytes", "--prune-bytes", "70", "--prune-multiple", "4")
    assert filters(report) == [FILTERS, 4]
    assert report["totals"]["weight_bytes_nominal"] <= 70
    assert run([str(model), "--target", "sim", "--prune-bytes", "3"]) == 2


def test_a_plan_repeats_the_run_and_its_file_of_scores(model: Path, tmp_path: Path) -> None:
    scores = tmp_path / "taylor.csv"
    rows = [f"relu1,{index},{abs(index - 5)}" for index in range(FILTERS)]
    scores.write_text("node,channel,score\n" + "\n".join(rows) + "\n")
    folder = tmp_path / "out"
    flags = ["--prune", "0.5", "--prune-importance", str(scores), "--prune-multiple", "2"]
    first = compile_(model, folder, *flags)
    assert filters(first) == [FILTERS, 6]
    plan = tomllib.loads((folder / "plan.toml").read_text())["options"]
    assert plan["prune_importance"] == "prune-importance.json"
    assert json.loads((folder / "prune-importance.json").read_text())["relu1"][5] == 0
    scores.unlink()
    again = tmp_path / "again"
    assert run([str(model), "--config", str(folder / "plan.toml"), "-o", str(again), "-q"]) == 0
    network = next(path.name for path in folder.iterdir() if path.suffix == ".npz")
    assert (again / network).read_bytes() == (folder / network).read_bytes()


def test_the_largest_ratio_that_holds(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--calib", str(data), "--data", str(data), "--prune", "--max-dice-drop"]
    report = compile_(model, tmp_path / "out", *flags, "0.05")
    trials = report["details"]["pruning"]["trials"]
    ratio = report["options"]["prune"]
    assert ratio > 0.3
    tried = [trial for trial in trials if trial["network"] == "float"]
    assert all(trial["holds"] == (trial["drop"] <= 0.05) for trial in trials)
    assert max(trial["ratio"] for trial in tried if trial["holds"]) >= ratio
    assert trials[-1] == {**trials[-1], "network": "compiled", "ratio": ratio, "holds": True}
    assert -report["totals"]["dice_difference"] <= 0.05
    printed = capsys.readouterr().out
    assert f"tried {ratio:g}" in printed
    assert "compiled: Dice" in printed
    assert tomllib.loads((tmp_path / "out/plan.toml").read_text())["options"]["prune"] == ratio


@pytest.mark.parametrize(("limit", "left"), [(0.2, 10), (0.0, FILTERS)])
def test_a_compiled_network_that_loses_more_gets_a_smaller_ratio(
    limit: float,
    left: int,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judged(result: CompileResult, options: CompileOptions) -> Trial:
        ratio = float(result.options.prune)
        return Trial(ratio, "compiled", 0.9, ratio / 10, ratio <= limit)

    monkeypatch.setattr(qcompile.pruning, "_compiled", judged)
    flags = ["--calib", str(data), "--data", str(data), "--prune", "auto", "--max-dice-drop", "0.1"]
    report = compile_(model, tmp_path / "out", *flags)
    trials = report["details"]["pruning"]["trials"]
    compiled = [trial["ratio"] for trial in trials if trial["network"] == "compiled"]
    assert compiled[0] > 0.2
    assert max(compiled) == compiled[0]
    assert report["options"]["prune"] == limit
    assert filters(report) == [FILTERS, left]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--prune", "many"], "--prune: 'many' is no ratio"),
        (["--prune"], "keeps --max-dice-drop on --data"),
        (["--prune-scope", "layer"], "--prune-scope: prunes nothing by itself"),
        (["--prune-exclude", "a"], "--prune-exclude: prunes nothing by itself"),
        (["--prune", "0.5", "--prune-exclude", "enc*"], "'enc*' matches no operator"),
        (["--prune", "0.5", "--prune-importance", "none.csv"], "none.csv: no such file"),
        (["--prune", "0.5", "--prune-importance", "{scores}"], "called 'conv9'"),
        (["--prune-flops", "1%"], "--prune-flops: "),
        (["--prune-flops", "some"], "is no budget"),
        (["--prune", "0.5", "--prune-method", "error"], "needs --calib"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    fragment: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = tmp_path / "scores.json"
    scores.write_text('{"conv9": [1]}')
    arguments = [item.replace("{scores}", str(scores)) for item in arguments]
    assert run([str(model), *arguments]) == 2
    error = capsys.readouterr().err
    assert fragment in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["{model}", "--prune", "0.5", "--importance", "taylor"],
        ["sweep", "{model}", "--importance", "taylor"],
        ["importance", "{model}"],
    ],
)
def test_taylor_scores_need_torch(
    arguments: list[str],
    model: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = [item.replace("{model}", str(model)) for item in arguments]
    assert run([*given, "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert "needs torch: pip install 'qcompile[train]'" in error
    assert error.count("\n") == 1


def test_the_compiler_itself_computes_no_gradients(model: Path, data: Path) -> None:
    options = CompileOptions(prune=0.5, prune_method="taylor", calib=str(data))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'qcompile importance' writes"):
        compile_model(model, options)


def test_no_batch_norm_to_tell(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_model(tmp_path / "folded.onnx")
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type != "BatchNormalization"]
    nodes[1].input[0] = "a"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    assert run([str(path), "--prune", "0.5", "--prune-method", "bn"]) == 2
    assert "no batch norm of its own" in capsys.readouterr().err


def test_sweep(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, document = tmp_path / "sweep.csv", tmp_path / "sweep.json"
    flags = ["--calib", str(data), "--data", str(data), "--ratios", "0.25,0.5", "--workers", "1"]
    flags += ["--csv", str(table), "--json", str(document)]
    assert run(["sweep", str(model), *flags, "--wbits", "8"]) == 0
    rows = list(csv.DictReader(table.open()))
    assert [(row["ratio"], row["network"]) for row in rows] == [
        (ratio, network) for ratio in ("0.0", "0.25", "0.5") for network in ("float", "compiled")
    ]
    assert [int(row["filters"]) - 1 for row in rows] == [12, 12, 9, 9, 6, 6]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:4] == ["ratio", "network", "filters", "parameters"]
    assert len(printed) == 7
    read = json.loads(document.read_text())
    assert read["schema"] == "qcompile-sweep"
    assert [row["dice"] for row in read["rows"]] == [[float(row["dice_1"])] for row in rows]
    # A row is what its command gives.
    one = compile_(model, tmp_path / "one", *flags[:4], "--prune", "0.5", "--wbits", "8")
    last = read["rows"][-1]
    assert one["totals"]["dice_quantized"] == last["dice"][0]
    assert one["totals"]["parameters"] == last["parameters"]
    assert one["totals"]["weight_bytes_nominal"] == last["bytes"]
    assert 2 * one["totals"]["macs"] == last["flops"]


def test_sweep_in_several_processes_gives_the_same(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for workers in ("1", "2"):
        table = tmp_path / f"sweep{workers}.csv"
        flags = ["--data", str(data), "--ratios", "0.5", "--workers", workers, "--csv", str(table)]
        assert run(["sweep", str(model), *flags, "-q"]) == 0
        texts.append(table.read_text())
    assert texts[0] == texts[1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--ratios", "0.1"], "needs --data"),
        (["--data", "{data}", "--ratios", "0.1,x"], "is no list of ratios"),
        (["--data", "{data}", "--ratios", "1.5"], "--ratios: 1.5 is no ratio"),
        (["--data", "{data}", "--csv", "."], "is a folder"),
        (["--data", "{data}", "--prune-exclude", "x"], "ratio 0.1 float: --prune-exclude"),
        (["--data", "{data}", "--max-dice-drop", "0.1"], "--max-dice-drop"),
    ],
)
def test_wrong_sweeps(
    arguments: list[str],
    fragment: str,
    model: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [item.replace("{data}", str(data)) for item in arguments]
    assert run(["sweep", str(model), "--workers", "1", *given]) == 2
    error = capsys.readouterr().err
    assert fragment in error
    assert error.count("\n") == 1


def test_a_file_called_sweep_is_a_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.rename("sweep")
    assert run(["sweep", "--target", "sim", "-o", "out", "-q"]) == 0
    assert Path("out/report.json").exists()


def test_help_of_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--ratios" in text
    assert "--prune-method" in text
    assert "--verify" not in text
