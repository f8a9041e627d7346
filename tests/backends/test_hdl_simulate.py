"""Simulations of hardware, and their comparison with the integer simulator."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.backends.hdl import cxxrtl
from qcompile.backends.hdl.backend import HdlBackend, HdlPlan
from qcompile.backends.hdl.cxxrtl_split import split
from qcompile.backends.hdl.simulate import Simulation
from qcompile.backends.hdl.stimulus import Stalls, from_words, payloads_of_words, to_words
from qcompile.backends.hdl.verify import verify
from qcompile.errors import ToolError, VerificationError
from qcompile.graph import Graph
from qcompile.hw.fifo import Fifo
from qcompile.hw.gearbox import Gearbox
from qcompile.hw.streams import TensorStream
from qcompile.types import Array, IntType
from tests.backends.networks import image, unet
from tests.hw.drive import random_frame

needs_compiler = pytest.mark.skipif(cxxrtl.find_compiler() is None, reason="no C++ compiler")
CACHE_FOLDER = cxxrtl._cache_folder
STREAM = TensorStream(2, 4, 3, IntType(6, False), 3)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for libraries of these tests. (Yosys keeps its own things in XDG_CACHE_HOME.)"""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(cxxrtl, "_cache_folder", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def network() -> tuple[Graph, HdlPlan]:
    graph = unet(base=2, size=8)
    return graph, HdlBackend(multipliers=12).plan(graph)


class Wire(wiring.Component):
    """Passes beats on in the same cycle; has faults on request."""

    def __init__(self, fault: str = "", stream: TensorStream = STREAM) -> None:
        self._fault = fault
        super().__init__({"i0": In(stream.signature), "o0": Out(stream.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(8)
        m.d.sync += count.eq(count + 1)
        m.d.comb += [
            self.i0.ready.eq(self.o0.ready),
            self.o0.valid.eq(self.i0.valid),
            self.o0.payload.eq(self.i0.payload),
        ]
        if self._fault == "unstable":
            m.d.comb += Value.cast(self.o0.payload).eq(Value.cast(self.i0.payload) ^ count[0])
        if self._fault == "withdrawn":
            m.d.comb += self.o0.valid.eq(self.i0.valid & count[2])
            m.d.comb += self.i0.ready.eq(self.o0.ready & count[2])
        if self._fault == "many":
            with m.If(count == 100):
                m.d.comb += self.o0.valid.eq(1)
        if self._fault == "few":
            with m.If(count < 6):
                m.d.comb += self.o0.valid.eq(0)
        return m


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 9, 16, 21, 32, 33])
@pytest.mark.parametrize("is_signed", [False, True])
def test_words_hold_what_the_stream_packs(bits: int, is_signed: bool) -> None:
    if is_signed and bits == 1:
        pytest.skip("no such type")
    stream = TensorStream(2, 3, 28, IntType(bits, is_signed), 7)
    frame = random_frame(stream, np.random.default_rng(bits))
    words = to_words(stream, frame)
    assert payloads_of_words(words) == stream.pack(frame)
    np.testing.assert_array_equal(from_words(stream, words), frame)


@needs_compiler
def test_both_simulators_agree() -> None:
    block = Fifo(TensorStream(4, 4, 70, IntType(7, True), 35), 5)
    rng = np.random.default_rng(1)
    frames = [[random_frame(block.stream, rng)] for _ in range(3)]
    compiled = Simulation.of_block(block)
    python = Simulation.of_block(block, compiled=False)
    assert (compiled.compiled, python.compiled) == (True, False)
    for stalls in (Stalls(), Stalls(0.4, 0.6, 3)):
        for reset_at in (None, 20):
            results = [s.run(frames, stalls, reset_at) for s in (compiled, python)]
            for result in results:
                assert result.deadlock is None
                assert not result.faults
                for number, frame in enumerate(frames):
                    np.testing.assert_array_equal(result.outputs[0][number], frame[0])
            if stalls == Stalls():
                first, second = results
                assert first.cycles == second.cycles
                assert first.frame_cycles == second.frame_cycles == (32, 32)
                assert first.latency == second.latency == block.latency


@needs_compiler
@pytest.mark.parametrize("lanes", [1, 6, 12])
def test_frames_run_under_every_seed(lanes: int) -> None:
    block = Gearbox(TensorStream(3, 3, 12, IntType(11, False), 4), lanes)
    frame = random_frame(block.inputs[0], np.random.default_rng(lanes))
    simulation = Simulation.of_block(block)
    seen = set()
    for seed in range(20):
        result = simulation.run([[frame]] * 2, Stalls(0.5, 0.5, seed))
        np.testing.assert_array_equal(result.outputs[0][1], block.compute(frame)[0])
        seen.add(result.cycles)
    assert len(seen) > 5


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_compiler), False])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", ""),
        ("unstable", "o0 changed or withdrew a beat before it was taken"),
        ("withdrawn", "o0 changed or withdrew a beat before it was taken"),
        ("many", "o0 has 17 beats instead of 16"),
    ],
)
def test_breaches_of_the_protocol_are_seen(compiled: bool, fault: str, words: str) -> None:
    simulation = Simulation(Wire(fault), [STREAM], [STREAM], compiled=compiled)
    frames = [[random_frame(STREAM, np.random.default_rng(n))] for n in range(2)]
    result = simulation.run(frames, Stalls(1.0, 1.0 if fault == "many" else 0.5, 5))
    assert result.faults == ((words,) if words else ())


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_compiler), False])
def test_missing_beats_are_a_deadlock(compiled: bool) -> None:
    simulation = Simulation(Wire("few"), [STREAM], [STREAM], patience=300, compiled=compiled)
    frame = random_frame(STREAM, np.random.default_rng(0))
    result = simulation.run([[frame]])
    assert result.deadlock is not None
    assert str(result.deadlock) == (
        "nothing moves after cycle 8: i0 at beat 8 of 8, o0 at beat 2 of 8; full FIFOs: none"
    )


def test_streams_that_do_not_fit_the_ports_are_refused() -> None:
    other = dataclasses.replace(STREAM, lanes=1)
    component = Wire()
    with pytest.raises(ValueError, match=r"bits \(18,\) do not fit streams with bits \(6,\)"):
        Simulation(component, [other], [STREAM], compiled=False)
    Simulation(component, [STREAM], [STREAM], compiled=False).run([[np.zeros((8, 3), int)]])


@needs_compiler
def test_a_library_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Fifo(STREAM, 2)
    frame = random_frame(STREAM, np.random.default_rng(0))
    Simulation.of_block(block)
    kept = set(cache.iterdir())
    assert kept
    assert all(path.suffix == ".so" for path in kept), "a build left something behind"

    def forbidden(text: str) -> str:
        raise AssertionError("built again")

    monkeypatch.setattr(cxxrtl, "_design", forbidden)
    result = Simulation.of_block(block).run([[frame]])
    np.testing.assert_array_equal(result.outputs[0][0], frame)


def test_libraries_are_kept_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CACHE_FOLDER() == tmp_path / "qcompile" / "cxxrtl"


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = CACHE_FOLDER()
    (folder / "library").write_text("written")
    assert CACHE_FOLDER() == folder


@needs_compiler
def test_a_compiler_that_fails_is_a_tool_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cxx"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no memory >&2\nexit 3\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(ToolError, match=r"could not build the simulation \(exit 3\): no memory"):
        Simulation(Wire(), [STREAM], [STREAM])


def test_without_a_compiler_python_simulates(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    frame = random_frame(STREAM, np.random.default_rng(0))
    with caplog.at_level(logging.WARNING):
        simulation = Simulation(Wire(), [STREAM], [STREAM])
    assert "no C++ compiler was found" in caplog.text
    np.testing.assert_array_equal(simulation.run([[frame]]).outputs[0][0], frame)


def test_compilers_that_do_not_work_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, status in (("clang++", 1), ("c++", 0)):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nexit {status}\n")
        script.chmod(0o755)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cxxrtl._works.cache_clear()
    try:
        assert cxxrtl.find_compiler() == "c++"
    finally:
        cxxrtl._works.cache_clear()


def test_unfamiliar_sources_are_left_alone() -> None:
    assert split("int main() {}\n") == ("int main() {}\n", False)


def _shallow(plan: HdlPlan, value: str, depth: int) -> HdlPlan:
    """The same design with another FIFO."""
    nodes = []
    for node in plan.design.nodes:
        block = node.block
        if node.name == value:
            assert isinstance(block, Fifo)
            block = dataclasses.replace(block, depth=depth)
        nodes.append(dataclasses.replace(node, block=block))
    return dataclasses.replace(plan, design=dataclasses.replace(plan.design, nodes=tuple(nodes)))


@needs_compiler
def test_a_network_agrees_with_the_simulator(network: tuple[Graph, HdlPlan]) -> None:
    graph, plan = network
    feeds = [image(graph, seed) for seed in range(3)]
    result = verify(graph, plan.design, feeds)
    assert result.compiled
    assert (result.runs, result.frames) == (4, 3)
    assert result.values == len(plan.design.taps)
    assert result.interval == plan.speed.interval
    assert result.elements > 4 * 3 * 8 * 8
    assert result.fifo_high_water
    assert result.details()["cycles_per_frame"] == result.interval


@needs_compiler
def test_one_feed_is_sent_twice(network: tuple[Graph, HdlPlan]) -> None:
    graph, plan = network
    assert verify(graph, plan.design, [image(graph)], stalls=()).frames == 2


@needs_compiler
def test_a_deadlock_names_the_full_fifo(network: tuple[Graph, HdlPlan]) -> None:
    graph, plan = network
    depths = {n.name: n.block.depth for n in plan.design.nodes if isinstance(n.block, Fifo)}
    skip = max(depths, key=depths.__getitem__)
    plan = _shallow(plan, skip, 2)
    with pytest.raises(VerificationError, match=rf"deadlocks without stalls.*{skip} \(2 beats\)"):
        verify(graph, plan.design, [image(graph)])


@needs_compiler
def test_the_first_operator_that_differs_is_named(network: tuple[Graph, HdlPlan]) -> None:
    graph, _ = network
    weights = next(name for name in graph.constants if name.startswith("enc/conv2"))
    changed: Array = graph.constants[weights].copy()
    changed[0, 0, 1, 1] = -changed[0, 0, 1, 1] or 1
    constants = {**graph.constants, weights: changed}
    plan = HdlBackend(multipliers=12).plan(dataclasses.replace(graph, constants=constants))
    with pytest.raises(
        VerificationError,
        match=r"differ at .*enc/conv2.*value 'enc/conv2\.y'\[0, 0, \d, \d\] is \d+, expected \d+.*"
        r"frame 0, without stalls",
    ):
        verify(graph, plan.design, [image(graph)])


def test_python_does_not_begin_what_takes_hours(
    monkeypatch: pytest.MonkeyPatch, network: tuple[Graph, HdlPlan]
) -> None:
    graph, plan = network
    monkeypatch.setattr("qcompile.backends.hdl.verify.PYTHON_CYCLES", 100)
    with pytest.raises(ToolError, match=r"cycles of 'model_core' would take too long in Python"):
        verify(graph, plan.design, [image(graph)], compiled=False)


@needs_compiler
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_every_compiler_will_do(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    monkeypatch.setitem(os.environ, "CXX", compiler)
    block = Fifo(STREAM, 30)
    frame = random_frame(STREAM, np.random.default_rng(0))
    result = Simulation.of_block(block).run([[frame]] * 3, Stalls(0.7, 0.3))
    np.testing.assert_array_equal(result.outputs[0][2], frame)
