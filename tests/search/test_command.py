"""Budgets on the command line, with a real but tiny network."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.cli import run
from qcompile.search import candidate

SIZE = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of five layers that marks bright blobs, and images with masks."""
    folder = tmp_path_factory.mktemp("net")
    generator = np.random.default_rng(1)
    shapes = [(6, 1, 3, 3), (12, 6, 3, 3), (12, 12, 3, 3), (6, 12, 3, 3), (1, 6, 1, 1)]
    nodes, constants = [], []
    value = "input"
    for index, shape in enumerate(shapes):
        fan_in = int(np.prod(shape[1:]))
        weights = generator.normal(1 / fan_in, 0.5 / fan_in, shape)
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{index}"))
        bias = np.full(shape[0], -0.5 if index == len(shapes) - 1 else 0.0, np.float32)
        constants.append(numpy_helper.from_array(bias, f"b{index}"))
        pad = shape[2] // 2
        nodes.append(
            helper.make_node(
                "Conv", [value, f"w{index}", f"b{index}"], [f"c{index}"], f"conv{index}",
                pads=[pad] * 4,
            )
        )  # fmt: skip
        value = f"c{index}"
        if index < len(shapes) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"r{index}"], f"relu{index}"))
            value = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "blobs.onnx")
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    images, masks = [], []
    for _ in range(6):
        y, x = generator.integers(4, SIZE - 4, 2)
        near = np.hypot(rows - y, columns - x) < 4
        images.append(np.clip(near * 160 + generator.integers(0, 90, near.shape), 0, 255))
        masks.append(near)
    stack = np.array(images, np.uint8)
    np.savez(folder / "data.npz", train_x=stack, val_x=stack, val_y=np.array(masks, np.uint8))
    return folder


def compile_with(files: Path, out: Path, *flags: str) -> int:
    return run(
        [
            str(files / "blobs.onnx"),
            *("--calib", f"{files / 'data.npz'}:train_x", "-o", str(out), "-q", "--target", "sim"),
            *("--search-cache", str(out.parent / "cache"), "--workers", "1", *flags),
        ]
    )


def plans(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "trade_off.json").read_text())["plans"]
    assert isinstance(found, list)
    return found


def chosen(out: Path) -> dict[str, Any]:
    return next(plan for plan in plans(out) if plan["chosen"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many candidates are compiled in this process."""
    counts = [0]
    plain = candidate._measured

    def measured(*arguments: Any) -> Any:
        counts[0] += 1
        return plain(*arguments)

    monkeypatch.setattr(candidate, "_measured", measured)
    return counts


def test_bytes_without_labels_are_spent_by_sqnr_and_never_measured_twice(
    files: Path, tmp_path: Path, counted: list[int]
) -> None:
    out = tmp_path / "out"
    assert compile_with(files, out, "--max-bytes", "60%") == 0
    best = chosen(out)
    whole = max(plan["bytes"] for plan in plans(out))
    assert best["bytes"] <= 0.6 * whole
    assert best["dice"] is None
    fitting = [plan for plan in plans(out) if plan["bytes"] <= 0.6 * whole]
    assert best["sqnr_db"] == max(plan["sqnr_db"] for plan in fitting)
    assert (out / "trade_off.svg").read_text().startswith("<svg ")
    assert "# Widths" in (out / "trade_off.md").read_text()
    first = counted[0]
    assert first == len(plans(out))
    assert compile_with(files, tmp_path / "again", "--max-bytes", "60%") == 0
    assert counted[0] == first
    assert chosen(tmp_path / "again") == best


def test_the_written_plan_repeats_the_choice_without_a_search(files: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    assert compile_with(files, out, "--max-bops", "15%") == 0
    assert run([str(files / "blobs.onnx"), "--config", str(out / "plan.toml"), "-q",
                "-o", str(again), "--calib", f"{files / 'data.npz'}:train_x"]) == 0  # fmt: skip
    assert not (again / "trade_off.json").exists()
    names = ("input", "layer")
    one, two = (tomllib.loads((folder / "plan.toml").read_text()) for folder in (out, again))
    assert [one[name] for name in names] == [two[name] for name in names]
    assert min(int(layer["abits"]) for layer in one["layer"]) < 8


def test_a_limit_on_dice_chooses_the_widths(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = ("--data", str(files / "data.npz"))
    assert compile_with(files, out, *data, "--max-dice-drop", "0.02") == 0
    best = chosen(out)
    assert best["dice_float"] - best["dice"] <= 0.02
    assert best["bytes"] == min(plan["bytes"] for plan in plans(out) if plan["fits"])
    report = json.loads((out / "report.json").read_text())
    assert report["totals"]["dice_quantized"] == pytest.approx(best["dice"], abs=1e-6)
    assert [point["chosen"] for point in report["trade_off"]].count(True) == 1


def test_with_given_widths_the_limit_is_a_gate(files: Path, tmp_path: Path) -> None:
    flags = ("--data", str(files / "data.npz"), "--max-dice-drop", "1", "--wbits", "8")
    out = tmp_path / "out"
    assert compile_with_plain(files, out, *flags) == 0
    assert not (out / "trade_off.json").exists()


def compile_with_plain(files: Path, out: Path, *flags: str) -> int:
    calib = f"{files / 'data.npz'}:train_x"
    return run([str(files / "blobs.onnx"), "--calib", calib, "-o", str(out), "-q", *flags])


def test_a_budget_out_of_reach_is_one_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_with(files, tmp_path / "out", "--max-bytes", "10") == 2
    assert "error: --max-bytes 10: out of reach" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cluster_finds_what_local_processes_find(files: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    local, remote = tmp_path / "local", tmp_path / "remote"
    local.mkdir()
    remote.mkdir()
    flags = ("--max-bytes", "70%")
    assert compile_with(files, local / "out", *flags, "--workers", "2") == 0
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert compile_with(files, remote / "out", *flags, "--scheduler", address) == 0
    results = [
        [{**plan, "seconds": 0} for plan in plans(folder / "out")] for folder in (local, remote)
    ]
    assert results[0] == results[1]
    assert os.listdir(remote / "cache")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "share"),
    [
        (("--max-ram-bits", "75%"), 0.75),
        (("--max-luts", "99%", "--device", "ecp5-25k", "--target-fps", "1000"), 0.99),
    ],
)
def test_an_accelerator_within_its_budget(
    files: Path, tmp_path: Path, budget: tuple[str, ...], share: float
) -> None:
    out = tmp_path / "out"
    flags = ("--input-kind", "uint8", "--output-kind", "classes", "--target", "hdl", *budget)
    assert compile_with(files, out, *flags) == 0
    name = budget[0].removeprefix("--max-").replace("-", "_")
    best = chosen(out)
    widest = next(plan for plan in plans(out) if plan["label"] == "uniform 8/8")
    assert best[name] <= share * widest[name]
    assert best["fps"] >= (1000 if "--target-fps" in budget else 1)
