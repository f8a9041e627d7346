"""The C for microcontrollers: the same bits from less memory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qcompile.backends.c import backend as backend_module
from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.mcu import planned_by_rows
from qcompile.backends.c.planned import Planned
from qcompile.backends.c.verify import verify
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.packing import TernaryPacking
from qcompile.passes.store_rows import Extended, cone, with_packed, with_recomputed
from qcompile.pipeline import compile_model
from qcompile.search.costs_of_graph import costs_of
from qcompile.sim.executor import Executor
from qcompile.types import IntType
from tests.backends.compile_c import SANITIZERS, STRICT, build, call
from tests.backends.networks import float_unet, image, unet
from tests.backends.test_shared_models import DATA
from tests.op_cases import CASES, cases_of
from tests.random_graphs import random_graph

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
FLOAT_TOLERANCE = 1e-5
"""Relative to the largest element; only operators of float islands may use it."""


@needs_gcc
@pytest.mark.parametrize("stem", sorted(CASES))
def test_every_operator_equals_the_simulator(stem: str, tmp_path: Path) -> None:
    chosen = []
    for index, case in enumerate(cases_of(stem)):
        backend = CBackend(f"case_{index}", mcu=True)
        if not backend.check(case.graph):
            chosen.append((case, backend.emit(case.graph)))
    library = build([program for _, program in chosen], tmp_path)
    for case, program in chosen:
        expected = Executor(case.graph).run(case.feeds)
        actual = call(library, program, case.feeds)
        for value in case.graph.outputs:
            message = f"{case.name}: {value}"
            if case.graph.types[value].is_float and stem not in ("dequantize", "lookup"):
                scale = max(1.0, float(np.abs(expected[value]).max()))
                np.testing.assert_allclose(
                    actual[value], expected[value], atol=FLOAT_TOLERANCE * scale, err_msg=message
                )
            else:
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)


@needs_gcc
@settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(st.lists(st.integers(0, 1 << 32), min_size=6, max_size=6, unique=True))
def test_random_graphs_equal_the_simulator(seeds: list[int]) -> None:
    """Several graphs an example, because one compiler call costs more than a graph."""
    made = [random_graph(seed) for seed in seeds]
    programs = [CBackend(f"g{i}", mcu=True).emit(graph) for i, (graph, _) in enumerate(made)]
    with tempfile.TemporaryDirectory() as folder:
        library = build(programs, Path(folder), flags=("-O1",))
        for seed, (graph, feeds), program in zip(seeds, made, programs, strict=True):
            expected = Executor(graph).run(feeds)
            actual = call(library, program, feeds)
            for value in graph.outputs:
                np.testing.assert_array_equal(
                    actual[value], expected[value], err_msg=f"seed {seed}: {value}"
                )


@needs_gcc
@pytest.mark.parametrize("make", [unet, float_unet])
def test_every_tensor_equals_and_the_arena_is_smaller(make: Callable[[], Graph]) -> None:
    """The debug build runs the same rows in the same order, but keeps them all."""
    graph = make()
    usual, small = CBackend("net", levels=()).emit(graph), CBackend("net", mcu=True).emit(graph)
    assert small.arena_bytes <= usual.arena_bytes
    # Float layers have no kernels for rows, so nothing is gained around them.
    assert small.arena_bytes < usual.arena_bytes or make is float_unet
    result = verify(graph, small, [image(graph)])
    assert result.passed, result.mismatch
    assert result.values == verify(graph, usual, [image(graph)]).values


def extended(graph: Graph, rng: Random) -> Extended:
    """`graph` with some values computed again and some packed, for some of their readers."""
    result = Extended(graph, {})
    for _ in range(4):
        values = [
            value
            for value, readers in result.graph.consumers.items()
            if readers and value in graph.producers and graph.types[value].rank == 4
        ]
        if not values:
            break
        value = rng.choice(values)
        readers = result.graph.consumers[value]
        chosen = frozenset(op.name for op in rng.sample(readers, rng.randint(1, len(readers))))
        if rng.random() < 0.5:
            result = with_recomputed(result, cone(result.graph, value), chosen)
        else:
            result = with_packed(result, value, chosen) or result
    return result


@needs_gcc
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.lists(st.integers(0, 1 << 32), min_size=6, max_size=6, unique=True))
def test_rows_packed_or_computed_again_change_nothing(seeds: list[int]) -> None:
    """Whatever is stored in another way: more than a program that saves memory would do."""

    def plan(graph: Graph, ternary: TernaryPacking, keeps_attention: bool) -> Planned:
        return planned_by_rows(extended(graph, Random(seed)), ternary, keeps_attention)

    made = []
    for index, seed in enumerate(seeds):
        graph, feeds = random_graph(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend_module, "plan_rows", plan)
            made.append((seed, graph, feeds, CBackend(f"g{index}", mcu=True).emit(graph)))
    with tempfile.TemporaryDirectory() as folder:
        library = build([program for *_, program in made], Path(folder), flags=("-O1",))
        for seed, graph, feeds, program in made:
            expected, actual = Executor(graph).run(feeds), call(library, program, feeds)
            for value in graph.outputs:
                np.testing.assert_array_equal(
                    actual[value], expected[value], err_msg=f"seed {seed}: {value}"
                )


@needs_gcc
@pytest.mark.parametrize(("bits", "kinds"), [(6, {"PackRows", "UnpackRows"}), (8, set())])
def test_long_skips_are_packed_or_computed_again(
    bits: int, kinds: set[str], tmp_path: Path
) -> None:
    """Under sanitizers, with an arena and public arrays of exactly the announced size."""
    graph = unet(codes=IntType(bits, signed=False), size=64, depth=3)
    feeds = image(graph)
    vectors = [{**feeds, **Executor(graph).run(feeds)}]
    program = CBackend("net", mcu=True).emit(graph, None, vectors)
    steps = program.layout.steps
    assert {step.op.kind for step in steps} & {"PackRows", "UnpackRows"} == kinds
    again = [step for step in steps if step.op.name.endswith("again")]
    assert bool(again) == (program.multiplications_again > 0)
    assert again or kinds
    total = sum(item.total for item in program.layer_bytes.values())
    assert set(program.layer_bytes) == {op.name for op in graph.ops}
    assert program.constant_bytes == total
    program.artifacts.write(tmp_path)
    for flags in ((), ("-DNET_TAPS",)):
        command = ["gcc", *STRICT, *SANITIZERS, *flags, "-o", "test", "main.c", "net.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        done = subprocess.run(["./test"], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert "agree" in done.stdout
    assert verify(graph, program, [feeds]).passed


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("setting", ["4/6", "8/8", "ternary/4"])
@pytest.mark.parametrize("name", DATA)
def test_trained_networks(name: str, setting: str, shared_dir: Path) -> None:
    """Every tensor equals the simulator's, from less than 30 % of the memory."""
    model, images = shared_dir / f"models/{name}.onnx", shared_dir / f"data/{DATA[name]}.npz"
    if not (model.exists() and images.exists()):
        pytest.skip(f"{model.name} or its data are not there")
    wbits, abits = setting.split("/")
    options = CompileOptions(
        wbits=wbits, abits=abits, calib=f"{images}:train_x", calib_images=4, verify=True, mcu=True
    )
    result = compile_model(model, options)
    assert result.verified
    footprint = result.report.footprint
    assert footprint is not None
    assert footprint.arena_bytes == result.report.totals.arena_bytes
    usual = CBackend(levels=()).plan(result.integer_graph).arena().size
    assert footprint.arena_bytes < 0.3 * usual
    # Convolutions are computed again only within limits.
    total = sum(row.macs for row in result.report.layers)
    assert footprint.multiplications_again <= total / 8


def test_budgets_count_the_arena_of_the_program() -> None:
    graph = unet(size=32, depth=2)
    usual, small = (CBackend(mcu=mcu).emit(graph).arena_bytes for mcu in (False, True))
    assert costs_of(graph, CompileOptions()).arena == usual
    assert costs_of(graph, CompileOptions(mcu=True)).arena == small
    assert small < usual
