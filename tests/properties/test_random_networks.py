"""What holds for every network and every plan, tried on random ones.

The normal run takes a few dozen fixed examples; `-m slow` takes many more. An example that fails is
reproduced by its seed: see `example` in compiled.py.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from qcompile.config import resolve
from qcompile.errors import QCompileError
from qcompile.feeds import float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.ops import GroupNorm
from qcompile.options import CompileOptions, Taps, Target
from qcompile.passes.base import run_passes
from qcompile.pipeline import compile_model, simplify_passes
from qcompile.result import CompileResult
from qcompile.sim.attention_maps import attention_layers
from qcompile.sim.executor import Executor
from qcompile.sim.file import load_network, network_bytes
from qcompile.types import Array
from qcompile.verifier import verify
from tests.properties.compiled import Example, example

IMPORT_TOLERANCE = 1e-3
"""Of max|reference|."""
SIMPLIFY_TOLERANCE = 1e-4
LARGEST_ERROR = {"8": 0.25, "16": 0.01}
"""Of an output's largest magnitude: far above what is usual (0.04 and 0.001 for 99 of 100), far
below what a wrong scale, a lost channel or a saturated layer gives."""

REFUSALS = (
    "binary output would fall",
    "a class map cannot follow it",
    "all attention of the network is computed in floats",
)

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
SEEDS = st.integers(0, (1 << 32) - 1)
LAYERS = st.integers(2, 7)


def examples(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test on `count` random (seed, layers), always the same ones."""
    chosen = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        return chosen(given(seed=SEEDS, layers=LAYERS)(test))

    return decorate


@contextmanager
def network(
    seed: int, layers: int, benign: bool = False, attention: bool = False
) -> Iterator[Example]:
    with tempfile.TemporaryDirectory() as folder:
        yield example(seed, Path(folder), benign, layers, attention)


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These programs are small, so compiling takes longer than running: no optimisation."""
    script = tmp_path / "cc-o0"
    script.write_text('#!/bin/sh\nexec gcc "$@" -O0 -DQCOMPILE_KEEP_FLAGS\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))


def reference(found: Example, feed: dict[str, Array]) -> dict[str, Array]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Its graph optimiser makes pads of pools that its own kernels refuse.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        found.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = list(found.imported.outputs)
    return dict(zip(names, session.run(names, feed), strict=True))


def assert_close(
    graph: Graph, actual: dict[str, Array], expected: dict[str, Array], tolerance: float
) -> None:
    """Float outputs within `tolerance` of their largest magnitude; classes but for ties."""
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        difference = np.abs(actual[name].astype(np.float64) - wanted.astype(np.float64))
        if not graph.types[name].is_float:
            assert np.count_nonzero(difference) <= max(1, 0.1 * difference.size), name
            continue
        largest = float(np.abs(wanted).max())
        # Differences of numbers near 1 that cancel leave rounding errors of that size.
        assert float(difference.max()) <= tolerance * largest + 2e-6, name


def check_float(seed: int, layers: int, attention: bool = False) -> None:
    with network(seed, layers, benign=True, attention=attention) as found:
        for feed in found.float_feeds():
            expected = reference(found, feed)
            actual = Executor(found.imported).run(feed)
            assert_close(found.imported, actual, expected, IMPORT_TOLERANCE)


def check_simplify(seed: int, layers: int, attention: bool = False) -> None:
    """Each pass by itself, so that a failure names it."""
    with network(seed, layers, benign=True, attention=attention) as found:
        feed = found.float_feeds()[0]
        expected = Executor(found.imported).run(feed)
        graph = found.imported
        for step in simplify_passes(found.options):
            graph = run_passes(graph, [step])
            verify(graph)
            actual = Executor(graph).run(feed)
            try:
                assert_close(graph, actual, expected, SIMPLIFY_TOLERANCE)
            except AssertionError as error:
                raise AssertionError(f"after {step.name}: {error}") from error


def check_accuracy(seed: int, layers: int) -> None:
    with network(seed, layers, benign=True) as found:
        for bits, limit in LARGEST_ERROR.items():
            if bits == "8" and any(isinstance(op, GroupNorm) for op in found.simplified.ops):
                continue  # a channel that varies by a few codes only is blown up
            result = compile_model(found.path, found.uniform(bits))
            verify(result.integer_graph)
            real, codes = Executor(result.float_graph), Executor(result.integer_graph)
            for feed in found.feeds:
                expected = real.run(float_feed(feed, found.specs))
                actual = codes.run(integer_feed(feed, result.integer_graph, found.specs))
                for name, wanted in expected.items():
                    if not result.float_graph.types[name].is_float:
                        continue
                    error = float(np.abs(actual[name] - wanted).max())
                    # What cancels nearly is judged by the size of what it was made from.
                    size = max(float(np.abs(wanted).max()), 0.1)
                    assert error <= limit * size, (bits, name, error)


def compiled(path: Path, options: CompileOptions) -> CompileResult:
    """As `compile_model`; what is refused for a stated reason is no example."""
    try:
        return compile_model(path, options)
    except QCompileError as error:
        if any(reason in str(error) for reason in REFUSALS):
            reject()
        raise


def check_c(seed: int, layers: int) -> None:
    """Raises VerificationError at the first element that differs."""
    with network(seed, layers) as found:
        options = dataclasses.replace(found.options, verify=True)
        assert compiled(found.path, options).verified


def check_attention(seed: int, layers: int) -> None:
    """As `check_c`, with the maps that the program keeps."""
    with network(seed, layers, attention=True) as found:
        taps = Taps.ATTENTION if attention_layers(found.simplified) else None
        options = dataclasses.replace(found.options, verify=True, taps=taps)
        assert compiled(found.path, options).verified


def check_repeatable(seed: int, layers: int) -> None:
    """The network file, a second compile, and the resolved plan: all the same."""
    with network(seed, layers) as found:
        first = compiled(found.path, found.options)
        same = compile_model(found.path, found.options).files()
        assert first.files().keys() == same.keys()
        for name, content in first.files().items():
            assert name == "timings.json" or content == same[name], name
        plan = found.path.with_name("plan.toml")
        plan.write_text(str(first.files()["plan.toml"]), encoding="utf-8")
        # Channels were equalised, and rounding made up for, with the images.
        again = compile_model(found.path, resolve({"config": plan, "calib": found.options.calib}))
        for name, content in first.artifacts.files.items():
            # The test vectors are made of the calibration images, the plan has none.
            if not name.startswith("vectors"):
                assert content == again.artifacts.files[name], name
        stored = found.path.with_name("random.qnet.npz")
        data = network_bytes(first.integer_graph)
        stored.write_bytes(data)
        loaded, _ = load_network(stored)
        assert network_bytes(loaded) == data
        compile_model(
            found.path,
            dataclasses.replace(found.options, target=Target.SIM, verify=True, mcu=False),
        )


@examples(120)
def test_the_float_executor_is_like_onnxruntime(seed: int, layers: int) -> None:
    check_float(seed, layers)


@examples(120)
def test_simplifying_keeps_the_function(seed: int, layers: int) -> None:
    check_simplify(seed, layers)


@examples(100)
def test_wide_codes_stay_near_the_float_network(seed: int, layers: int) -> None:
    check_accuracy(seed, layers)


@needs_gcc
@examples(100)
def test_c_equals_the_simulator(seed: int, layers: int) -> None:
    check_c(seed, layers)


@examples(30)
def test_compiles_repeat(seed: int, layers: int) -> None:
    check_repeatable(seed, layers)


@examples(30)
def test_attention_is_like_onnxruntime(seed: int, layers: int) -> None:
    check_float(seed, layers, attention=True)


@examples(30)
def test_simplifying_keeps_attention(seed: int, layers: int) -> None:
    check_simplify(seed, layers, attention=True)


@needs_gcc
@examples(5)
def test_c_equals_the_simulator_with_attention(seed: int, layers: int) -> None:
    check_attention(seed, layers)


CHECKS: dict[str, tuple[Any, int]] = {
    "float": (check_float, 1500),
    "simplify": (check_simplify, 1500),
    "accuracy": (check_accuracy, 600),
    "c": (check_c, 600),
    "repeatable": (check_repeatable, 200),
    "attention": (check_attention, 200),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_many_random_networks(name: str) -> None:
    check, count = CHECKS[name]
    examples(count)(check)()
