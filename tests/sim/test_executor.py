"""The executor: feeds, taps, lifetimes, float islands; and runs in parallel processes."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from qcompile import ops
from qcompile.errors import DataError, GraphError
from qcompile.graph import Graph, Stage
from qcompile.sim.executor import Executor
from qcompile.sim.parallel import map_many, run_many
from qcompile.types import UINT8, Array, IntType, Quantization, TensorType

WEIGHTS = TensorType(
    (4, 3, 3, 3), IntType(4, narrow=True), Quantization((0.5, 0.25, 1.5, 2.0), axis=0)
)


def small_graph() -> Graph:
    """x -> conv (ReLU) -> y -> max pool -> z -> 1x1 conv -> out."""
    rng = np.random.default_rng(0)
    conv = ops.Conv(
        name="first",
        inputs=("x", "w", "b"),
        outputs=("y",),
        strides=(1, 1),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        dilations=(1, 1),
        activation=ops.RELU,
    )
    pool = ops.MaxPool(
        name="pool",
        inputs=("y",),
        outputs=("z",),
        kernel=(2, 2),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    last = ops.Conv(
        name="last",
        inputs=("z", "v"),
        outputs=("out",),
        strides=(1, 1),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    constants: dict[str, Array] = {
        "w": rng.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "b": rng.standard_normal(4, dtype=np.float32),
        "v": rng.standard_normal((2, 4, 1, 1), dtype=np.float32),
    }
    types = {name: TensorType(data.shape) for name, data in constants.items()}
    types |= {
        "x": TensorType((1, 3, 8, 8)),
        "y": TensorType((1, 4, 8, 8)),
        "z": TensorType((1, 4, 4, 4)),
        "out": TensorType((1, 2, 4, 4)),
    }
    return Graph("small", Stage.FLOAT, ("x",), ("out",), (conv, pool, last), types, constants)


def image(seed: int) -> Array:
    return np.random.default_rng(seed).random((1, 3, 8, 8), dtype=np.float32)


def test_outputs_and_taps() -> None:
    executor = Executor(small_graph())
    plain = executor.run({"x": image(0)})
    assert list(plain) == ["out"]
    tapped = executor.run({"x": image(0)}, taps=["y"])
    assert set(tapped) == {"out", "y"}
    everything = executor.run({"x": image(0)}, taps="all")
    assert set(everything) == {"x", "y", "z", "out"}
    np.testing.assert_array_equal(plain["out"], everything["out"])
    np.testing.assert_array_equal(tapped["y"], everything["y"])
    assert everything["y"].min() == 0


def test_observer_sees_each_activation_and_nothing_lives_longer_than_needed() -> None:
    seen: dict[str, weakref.ref[Array]] = {}
    alive_at: dict[str, set[str]] = {}

    def observe(name: str, data: Array) -> None:
        seen[name] = weakref.ref(data)
        gc.collect()
        alive_at[name] = {other for other, reference in seen.items() if reference() is not None}

    Executor(small_graph()).run({"x": image(1)}, observe=observe)
    assert list(seen) == ["x", "y", "z", "out"]
    assert "y" not in alive_at["out"]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": image(0), "q": image(0)}, "no input 'q'"),
        ({"x": image(0)[:, :, :7]}, r"shape \[1, 3, 7, 8\]"),
        ({"x": image(0).astype(np.float64)}, "dtype float64"),
    ],
)
def test_wrong_feeds_are_named(feeds: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Executor(small_graph()).run(feeds)


def test_codes_outside_of_the_input_type_are_refused() -> None:
    graph = movement_graph(IntType(4, signed=False))
    with pytest.raises(DataError, match=r"0\.\.15"):
        Executor(graph).run({"x": np.full((1, 2, 4, 4), 16, np.uint8)})


@pytest.mark.parametrize("taps", [["nothing"], "nothing"])
def test_unknown_taps_are_refused(taps: list[str] | str) -> None:
    with pytest.raises(DataError, match="nothing"):
        Executor(small_graph()).run({"x": image(0)}, taps=taps)


def test_a_quantized_graph_has_no_arithmetic() -> None:
    with pytest.raises(GraphError, match="not lowered"):
        Executor(dataclasses.replace(small_graph(), stage=Stage.QUANTIZED))


def test_a_missing_integer_kernel_is_named() -> None:
    graph = small_graph()
    types = {**graph.types, "x": TensorType((1, 3, 8, 8), UINT8)}
    sigmoid = ops.Sigmoid(name="gate", inputs=("x",), outputs=("g",))
    types["g"] = TensorType((1, 3, 8, 8), UINT8)
    broken = Graph("broken", Stage.INTEGER, ("x",), ("g",), (sigmoid,), types, {})
    with pytest.raises(GraphError, match="Sigmoid 'gate'"):
        Executor(broken)


def test_float_island_dequantises_its_constants() -> None:
    graph = small_graph()
    codes = np.random.default_rng(3).integers(-7, 8, (4, 3, 3, 3)).astype(np.int8)
    island = dataclasses.replace(
        graph,
        stage=Stage.INTEGER,
        types={**graph.types, "w": WEIGHTS},
        constants={**graph.constants, "w": codes},
    )
    assert WEIGHTS.quantization is not None
    scale = np.array(WEIGHTS.quantization.scale, np.float32).reshape(4, 1, 1, 1)
    same = dataclasses.replace(
        graph, constants={**graph.constants, "w": codes.astype(np.float32) * scale}
    )
    feeds = {"x": image(2)}
    np.testing.assert_array_equal(
        Executor(island).run(feeds)["out"], Executor(same).run(feeds)["out"]
    )


def movement_graph(element: IntType) -> Graph:
    pool = ops.MaxPool(
        name="pool",
        inputs=("x",),
        outputs=("y",),
        kernel=(3, 3),
        strides=(2, 2),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        dilations=(1, 1),
    )
    order = ops.ArgMax(name="order", inputs=("y",), outputs=("c",), axis=1)
    types = {
        "x": TensorType((1, 2, 4, 4), element),
        "y": TensorType((1, 2, 2, 2), element),
        "c": TensorType((1, 1, 2, 2), IntType(1, signed=False)),
    }
    return Graph("movement", Stage.INTEGER, ("x",), ("c",), (pool, order), types, {})


def test_integer_movement_and_order_share_the_float_kernels() -> None:
    x = np.full((1, 2, 4, 4), -7, np.int8)
    x[0, 1, 3, 3] = -6
    found = Executor(movement_graph(IntType(4))).run({"x": x}, taps="all")
    assert found["y"].dtype == np.int8
    assert found["y"].min() == -7, "padding must not win"
    np.testing.assert_array_equal(found["c"][0, 0], [[0, 0], [0, 1]])


@pytest.mark.parametrize("workers", [1, 2])
def test_many_inputs_keep_their_order(workers: int) -> None:
    graph = small_graph()
    feeds = [{"x": image(seed)} for seed in range(7)]
    steps: list[int] = []
    results = list(run_many(graph, iter(feeds), workers=workers, progress=lambda: steps.append(1)))
    assert len(steps) == len(results) == 7
    executor = Executor(graph)
    for feed, result in zip(feeds, results, strict=True):
        np.testing.assert_array_equal(result["out"], executor.run(feed)["out"])


def largest(values: dict[str, Array]) -> float:
    return float(max(data.max() for data in values.values()))


def test_workers_reduce_their_values() -> None:
    graph = small_graph()
    feeds = [{"x": image(seed)} for seed in range(3)]
    alone = list(map_many(graph, feeds, largest, taps="all", workers=1))
    shared = list(map_many(graph, feeds, largest, taps="all", workers=2))
    assert alone == shared


def test_errors_of_workers_arrive_as_they_are() -> None:
    with pytest.raises(DataError, match="shape"):
        list(run_many(small_graph(), [{"x": image(0)[..., :5]}], workers=2))


def test_a_main_script_without_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(
        "print('started', flush=True)\n"
        "from tests.sim.test_executor import image, small_graph\n"
        "from qcompile.sim.parallel import run_many\n"
        "feeds = [{'x': image(seed)} for seed in range(3)]\n"
        "print(len(list(run_many(small_graph(), feeds, workers=2))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.stdout.split() == ["started", "3"], found.stderr
