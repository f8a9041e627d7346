"""Maxima and class maps that run inside the convolution before them."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c import conv_direct, conv_winograd
from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.emitted import CProgram
from qcompile.graph import Op
from qcompile.ops import ArgMax, MaxPool, Threshold
from qcompile.passes import join_followers, kernel_costs
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.sim.executor import Executor
from qcompile.types import IntType, Quantization, TensorType
from tests.backends.compile_c import build_capped, call
from tests.backends.test_c_winograd import (
    build_sanitized,
    conv_case,
    copied,
    run_sanitized,
)
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
TWO, NONE, ONE = (2, 2), (0, 0), (1, 1)
I8, U1, U2, U8 = IntType(8), IntType(1, signed=False), IntType(2, signed=False), IntType(8, False)


def followed(case: OpCase, kind: str) -> OpCase:
    """The case with an operator behind its convolution, and outputs that copy both."""
    graph = case.graph
    y = graph.types["y"]
    unit = Quantization((1.0,), 0)
    follower: Op
    if kind == "pool":
        follower = MaxPool(
            name="pool",
            inputs=("y",),
            outputs=("z",),
            kernel=TWO,
            strides=TWO,
            pads_begin=NONE,
            pads_end=NONE,
            dilations=ONE,
        )
        z = dataclasses.replace(y, shape=follower.infer_shape([y.shape]))
        more: list[Op] = [follower, copied("z", "z_out")]
        outputs = ("y_out", "z_out")
    elif kind.startswith("arg_max"):
        keep = kind.endswith("keep")
        follower = ArgMax(
            name="map", inputs=("y",), outputs=("z",), axis=1, keepdims=keep, last=not keep
        )
        z = TensorType(follower.infer_shape([y.shape]), U2, unit)
        more, outputs = [follower], ("y_out", "z")
    else:
        follower = Threshold(name="map", inputs=("y",), outputs=("z",), limit=0.5, code_limit=5)
        z = TensorType(y.shape, U1, unit)
        more, outputs = [follower], ("y_out", "z")
    types = {**graph.types, "z": z, "y_out": y} | ({"z_out": z} if kind == "pool" else {})
    changed = dataclasses.replace(
        graph,
        outputs=outputs,
        ops=(*graph.ops, copied("y", "y_out"), *more),
        types=types,
    )
    return OpCase(f"{case.name}_{kind}", changed, case.feeds)


def some_cases(seed: int) -> list[OpCase]:
    """Every driver, sizes that are odd, bands that end in the middle of a window."""
    rng = np.random.default_rng(seed)
    pool = [
        conv_case(rng, "winograd", (16,), 20, (13, 11)),
        conv_case(rng, "direct", (5,), 18, (15, 9), element=U8),
        conv_case(rng, "signed", (8,), 4, (9, 10), element=I8),
        conv_case(rng, "strided", (8,), 16, (19, 12), strides=TWO, element=U8),
        conv_case(rng, "joined", (8, 4), 16, (10, 7), (1, 0, 0, 1)),
        conv_case(rng, "one_row", (4,), 6, (2, 8)),
        conv_case(rng, "wide_sums", (4,), 5, (7, 6), element=IntType(16)),
        conv_case(rng, "many_filters", (4,), 300, (4, 5)),
    ]
    classes = [
        conv_case(rng, "classes", (16,), 4, (9, 7), window=1, pads=(0, 0, 0, 0)),
        conv_case(rng, "wide", (16,), 3, (9, 7), output=IntType(16)),
    ]
    single = [
        conv_case(rng, "single", (16,), 1, (9, 7), window=1, pads=(0, 0, 0, 0)),
        conv_case(rng, "threshold", (16,), 1, (9, 7)),
    ]
    return [
        *(followed(case, "pool") for case in pool),
        *(
            followed(case, kind)
            for case, kind in itertools.product(classes, ("arg_max", "arg_max_keep"))
        ),
        *(followed(case, "threshold") for case in single),
    ]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors, too."""
    monkeypatch.setattr(join_followers, "FEWEST_BYTES", 0)


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd where it is exact, and few rows at a time."""
    monkeypatch.setattr(kernel_costs, "winograd_cycles", lambda *_: 0.0)
    monkeypatch.setattr(conv_direct, "BAND_ROWS", 3)
    monkeypatch.setattr(conv_direct, "BAND_BYTES", 0)
    monkeypatch.setattr(conv_winograd, "INPUT_BYTES", 0)
    monkeypatch.setattr(conv_winograd, "FEWEST_TILES", 12)


def emitted(case: OpCase, entry: str = "net") -> tuple[CProgram, str]:
    """The program, and its source without what differs between machines."""
    program = CBackend(entry=entry).emit(case.graph)
    return program, str(program.artifacts.files[f"{entry}.c"])


@needs_gcc
@pytest.mark.usefixtures("small_bands")
def test_all_levels_equal_the_simulator(tmp_path: Path) -> None:
    cases = some_cases(40)
    joint = side_by_side("all", cases)
    program, text = emitted(joint)
    assert len([step for step in program.layout.steps if step.follower]) == len(cases)
    for driver in ("conv", "conv_joined", "conv_direct", "conv_winograd"):
        assert re.search(rf"static void {driver}_\w*_max_pool_tiles_\w+\(", text), driver
        if driver != "conv_joined":
            assert re.search(rf"static void {driver}_\w*_arg_max_\w+\(", text), driver
    library = build_capped([program], tmp_path, ("-fopenmp",))
    expected = Executor(joint.graph).run(joint.feeds)
    threads = ctypes.CDLL("libgomp.so.1")
    for rank, count in itertools.product(range(4), (1, 2, 3)):
        threads.omp_set_num_threads(count)
        ctypes.c_int.in_dll(library, "level_cap").value = rank
        actual = call(library, program, joint.feeds)
        for value in joint.graph.outputs:
            message = f"{value}: level {rank}, {count} threads"
            np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)
    threads.omp_set_num_threads(1)


@needs_gcc
@pytest.mark.usefixtures("small_bands")
def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    """Under the sanitizers, with an arena that is exactly as large as announced."""
    case = side_by_side("all", some_cases(41)[::2])
    vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
    CBackend("net").emit(case.graph, None, [vector]).artifacts.write(tmp_path)
    build_sanitized(tmp_path)
    for threads in (1, 3):
        done = run_sanitized(tmp_path, threads)
        assert done.returncode == 0, done.stdout + done.stderr


def steps_with_followers(case: OpCase) -> int:
    """How many convolutions run something besides."""
    program, _ = emitted(case)
    return sum(step.follower is not None for step in program.layout.steps)


def pooled(**changes: object) -> OpCase:
    """A convolution and a maximum that differs in `changes` from one that can run inside."""
    case = followed(conv_case(np.random.default_rng(42), "case", (4,), 4, (8, 8)), "pool")
    ops = tuple(
        dataclasses.replace(op, **changes) if op.name == "pool" else op for op in case.graph.ops
    )
    pool = next(op for op in ops if op.name == "pool")
    z = dataclasses.replace(
        case.graph.types["z"], shape=pool.infer_shape([case.graph.types["y"].shape])
    )
    types = {**case.graph.types, "z": z, "z_out": z}
    return OpCase("case", dataclasses.replace(case.graph, ops=ops, types=types), case.feeds)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1),
        ({"kernel": (3, 3)}, 0),
        ({"strides": (1, 1)}, 0),
        ({"pads_begin": (1, 1)}, 0),
        ({"dilations": (2, 2)}, 0),
    ],
    ids=str,
)
def test_other_windows_have_a_step_of_their_own(changes: dict[str, object], expected: int) -> None:
    assert steps_with_followers(pooled(**changes)) == expected


def test_a_public_tensor_in_another_order_has_a_step_of_its_own() -> None:
    """What lies channel by channel cannot be written in rows."""
    case = pooled()
    graph = dataclasses.replace(
        case.graph,
        outputs=("y_out", "z"),
        ops=tuple(op for op in case.graph.ops if op.outputs != ("z_out",)),
        types={name: kind for name, kind in case.graph.types.items() if name != "z_out"},
    )
    assert PlaceTensors().run(graph)["z"].order == (0, 1, 2, 3)
    assert steps_with_followers(OpCase("public", graph, case.feeds)) == 0


def test_only_the_first_of_two_runs_inside() -> None:
    case = pooled()
    second = next(op for op in case.graph.ops if op.name == "pool")
    again = dataclasses.replace(second, name="again", outputs=("w_out",))
    z = case.graph.types["z"]
    graph = dataclasses.replace(
        case.graph,
        outputs=(*case.graph.outputs, "w_out"),
        ops=(*case.graph.ops, again),
        types={**case.graph.types, "w_out": z},
    )
    program, _ = emitted(OpCase("two", graph, case.feeds))
    kinds: Sequence[str] = [step.op.kind for step in program.layout.steps]
    assert [step.follower.name for step in program.layout.steps if step.follower] == ["pool"]
    assert kinds.count("MaxPool") == 3


def test_small_maxima_have_a_step_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes of 4 x 8 x 8 pixels, a byte each, are 256 bytes."""
    for least, expected in ((256, 1), (257, 0)):
        monkeypatch.setattr(join_followers, "FEWEST_BYTES", least)
        assert steps_with_followers(pooled()) == expected
