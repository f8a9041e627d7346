"""Whole accelerators against the simulator: every tensor of every frame, by CXXRTL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompile.backends.hdl.backend import HdlBackend, HdlPlan
from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.backends.hdl.verify import HdlVerifyResult, verify
from qcompile.errors import QCompileError
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.hw.schedule import frame_cycles
from qcompile.options import Target
from qcompile.pipeline import compile_model
from tests.backends.hdl_models import MODELS, compiled, feeds
from tests.properties.compiled import example
from tests.random_limits import added_limits

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")

BRAIN = Path(__file__).resolve().parents[2] / "examples" / "brain"
STALLS = (Stalls(0.5, 0.6, 3), Stalls(0.9, 0.1, 4))
FRAMES = 4
"""Without stalls the interval of the last one is that of the steady state."""
RANDOM_SEEDS = range(100)
LEAST_RANDOM = 15
"""Of so many seeds, at least so many networks are expected to be accepted."""

SLOW = pytest.mark.slow
SHARED = ("gm_unet8", "cvc_resunet", "sedgen_unet", "smp_unet_r18_d18b", "smp_unet_r18_l17")
"""Real networks that hardware takes."""


def check(
    graph: Graph,
    inputs: Sequence[Feed] | None = None,
    stalls: Sequence[Stalls] = STALLS,
    backend: HdlBackend | None = None,
) -> tuple[HdlPlan, HdlVerifyResult]:
    """Every tap of every frame; speed as promised."""
    plan = (backend or HdlBackend()).plan(graph)
    result = verify(graph, plan.design, inputs or feeds(graph, FRAMES), stalls=stalls)
    assert result.compiled
    assert result.values == len(plan.design.taps)
    return plan, result


def assert_speed(plan: HdlPlan, result: HdlVerifyResult) -> None:
    """As many cycles a frame as were promised, which are those of the slowest stage."""
    assert plan.speed.interval == frame_cycles(plan.flow)
    assert result.interval == pytest.approx(plan.speed.interval, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_a_small_network(name: str, tmp_path: Path) -> None:
    assert_speed(*check(compiled(MODELS[name](), tmp_path, wbits="4", abits="6")))


@pytest.mark.parametrize("name", ["transposed_unet", "residual"])
def test_a_ternary_network(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"wbits": "ternary", "abits": "ternary", "first_last_bits": "ternary"}
    plan, result = check(compiled(MODELS[name](), tmp_path, **options))
    assert_speed(plan, result)


@pytest.mark.parametrize(
    "name", [name if name == "gated" else pytest.param(name, marks=SLOW) for name in MODELS]
)
def test_codes_with_random_limits(name: str, tmp_path: Path) -> None:
    """By channel and alike; sums, means and movement rely on them."""
    with added_limits(len(name)):
        graph = compiled(MODELS[name](), tmp_path)
    assert any(kind.limits and len(kind.limits.low) > 1 for kind in graph.types.values())
    check(graph, stalls=STALLS[:1])


def test_float_images_are_quantized_by_whoever_feeds_the_accelerator(tmp_path: Path) -> None:
    graph = compiled(MODELS["several"](), tmp_path, input_kind="float32", wbits="8", abits="8")
    assert all(graph.types[name].is_float for name in graph.inputs)
    check(graph, stalls=STALLS[:1])


def test_the_brain_network_on_its_slices(tmp_path: Path) -> None:
    """The README's example, whole: a pair of slices, 3.8 million cycles each."""
    graph, slices = brain(tmp_path, "4", "6")
    plan, result = check(graph, slices, stalls=())
    assert_speed(plan, result)
    assert result.elements > 5_000_000


def brain(folder: Path, wbits: str, abits: str) -> tuple[Graph, list[Feed]]:
    """The integer graph and two slices that have not been calibrated on."""
    archive = BRAIN / "slices.npz"
    graph = compiled(
        BRAIN / "brain_unet.onnx", folder, wbits=wbits, abits=abits, calib=str(archive)
    )
    (name,) = graph.inputs
    with np.load(archive) as arrays:
        images = arrays["val_x"][[3, 8]]
    return graph, [{name: image.reshape(graph.types[name].shape)} for image in images]


@pytest.mark.slow
@pytest.mark.parametrize(("wbits", "abits"), [("4", "6"), ("ternary", "ternary")])
def test_the_brain_network_under_stalls(wbits: str, abits: str, tmp_path: Path) -> None:
    graph, slices = brain(tmp_path, wbits, abits)
    backend = HdlBackend(target_fps=100)
    assert_speed(*check(graph, slices, (Stalls(0.8, 0.6, 5),), backend))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["4/6", "8/8", "ternary/4"])
@pytest.mark.parametrize("name", MODELS)
def test_a_small_network_in_other_widths(name: str, setting: str, tmp_path: Path) -> None:
    wbits, abits = setting.split("/")
    graph = compiled(MODELS[name](), tmp_path, wbits=wbits, abits=abits, first_last_bits=wbits)
    check(graph, backend=HdlBackend(multipliers=200))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_a_real_network(name: str, shared_dir: Path, tmp_path: Path) -> None:
    model = shared_dir / "models" / f"{name}.onnx"
    if not model.exists():
        pytest.skip(f"{model.name} is not there")
    graph = compiled(model, tmp_path, wbits="4", abits="6")
    plan, result = check(graph, feeds(graph, 2), STALLS[:1], HdlBackend(multipliers=256))
    assert_speed(plan, result)


@pytest.mark.slow
def test_random_networks(tmp_path: Path) -> None:
    accepted = 0
    for seed in RANDOM_SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        made = example(seed, folder, benign=False)
        options = dataclasses.replace(made.options, target=Target.SIM, mcu=False)
        try:
            graph = compile_model(made.path, options).integer_graph
        except QCompileError:
            continue
        if HdlBackend().check(graph):
            continue
        accepted += 1
        check(graph, stalls=STALLS[:1])
    assert accepted >= LEAST_RANDOM
