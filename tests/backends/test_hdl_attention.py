"""Accelerators with attention over windows: every tensor, the pace, and the emitted Verilog."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from qcompile.backends.hdl.backend import HdlBackend
from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.backends.hdl.verify import verify
from qcompile.cli import run
from qcompile.errors import VerificationError
from qcompile.hdl_options import FifoPolicy
from qcompile.hw.attention_scores import AttentionScores
from qcompile.hw.pressure import slowdown
from qcompile.hw.schedule import frame_cycles
from qcompile.hw.softmax import Softmax
from qcompile.ops import LocalAttention2d
from tests.backends.hdl_models import ATTENTION, compiled, feeds
from tests.backends.test_hdl_emit import make
from tests.backends.test_hdl_fifos import paused
from tests.op_cases import all_cases

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
needs_verilator = pytest.mark.skipif(
    shutil.which("verilator") is None or shutil.which("iverilog") is None,
    reason="verilator or iverilog is not installed",
)
SLOW = pytest.mark.slow
LARGER = [name for name in ATTENTION if name != "attended"]
STALLS = (Stalls(0.5, 0.6, 3), Stalls(0.9, 0.1, 4))


@pytest.mark.parametrize("name", ATTENTION)
def test_no_fifo_slows_it_down(name: str, tmp_path: Path) -> None:
    """Weights come later than the values they meet; FIFOs and line buffers have room for that."""
    graph = compiled(ATTENTION[name](), tmp_path, wbits="4", abits="6")
    plan = HdlBackend().plan(graph)
    depths = {edge: size.depth for edge, size in plan.fifos.sizes.items()}
    assert any(depths.values())
    assert slowdown(plan.flow, depths) == 1.0
    assert plan.speed.interval == frame_cycles(plan.flow)


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        name if name == "attended" else pytest.param(name, marks=pytest.mark.slow)
        for name in ATTENTION
    ],
)
def test_every_tensor(name: str, tmp_path: Path) -> None:
    graph = compiled(ATTENTION[name](), tmp_path, wbits="4", abits="6")
    plan = HdlBackend().plan(graph)
    blocks = {type(node.block) for node in plan.design.nodes}
    assert {AttentionScores, Softmax} <= blocks
    attending = [op.name for op in graph.ops if isinstance(op, LocalAttention2d)]
    assert list(plan.design.attention) == attending
    result = verify(graph, plan.design, feeds(graph, 4), stalls=STALLS)
    assert result.compiled
    assert result.values == len(plan.design.taps)
    assert result.interval == frame_cycles(plan.flow)


def test_constant_values_are_refused() -> None:
    case = next(case for case in all_cases() if case.name.startswith("local_attention_2_"))
    constants = {**case.graph.constants, "v": case.feeds["v"]}
    problems = HdlBackend().check(replace(case.graph, inputs=("q", "k"), constants=constants))
    assert [str(problem) for problem in problems] == [
        "LocalAttention2d 'attention': has constant values; use --target c"
    ]


def test_wrong_weights_are_found() -> None:
    """The hardware of another table of exponentials: the first weight that differs is named."""
    case = next(case for case in all_cases() if case.name.startswith("local_attention_2_"))
    (op,) = case.graph.ops
    assert isinstance(op, LocalAttention2d)
    assert op.widths is not None
    design = HdlBackend().plan(case.graph).design
    verify(case.graph, design, [case.feeds], stalls=(), compiled=False)
    powers = (op.widths.powers[0], *(power // 2 for power in op.widths.powers[1:]))
    changed = replace(op, widths=replace(op.widths, powers=powers))
    other = HdlBackend().plan(replace(case.graph, ops=(changed,))).design
    weights = {tap: other.taps[tap] for tap in other.attention.values()}
    with pytest.raises(VerificationError, match=r"'attention': value 'y attention'\["):
        verify(case.graph, replace(other, taps=weights), [case.feeds], stalls=(), compiled=False)


@needs_compiler
@SLOW
@pytest.mark.parametrize("bits", ["8", "16"])
def test_other_widths(bits: str, tmp_path: Path) -> None:
    graph = compiled(ATTENTION["attended_by_channel"](), tmp_path, wbits="8", abits=bits)
    plan = HdlBackend(multipliers=40).plan(graph)
    assert verify(graph, plan.design, feeds(graph), stalls=STALLS[:1]).compiled


@needs_compiler
@SLOW
@pytest.mark.parametrize("name", ATTENTION)
def test_the_minimum_is_enough_under_any_stalls(name: str, tmp_path: Path) -> None:
    graph = compiled(ATTENTION[name](), tmp_path, wbits="4", abits="6")
    plan = HdlBackend(fifos=FifoPolicy.MINIMUM).plan(graph)
    assert any(size.depth for size in plan.fifos.sizes.values())
    stalls = (Stalls(1.0, 0.03, 1), Stalls(0.03, 1.0, 2), Stalls(0.7, 0.7, 3), Stalls(0.7, 0.7, 4))
    verify(graph, paused(plan.design), feeds(graph, 3), stalls=stalls)


@needs_verilator
@SLOW
def test_the_verilog_is_clean_and_runs(tmp_path: Path) -> None:
    """From the command line to the testbench in another simulator."""
    model, folder = tmp_path / "model.onnx", tmp_path / "hdl"
    onnx.save(ATTENTION["attended"](), str(model))
    flags = ("--target", "hdl", "--wbits", "4", "--abits", "6", "-q", "-o", str(folder))
    assert run([str(model), *flags]) == 0
    assert make(folder, "lint") == (0, "", "")
    code, out, err = make(folder, "sim")
    assert (code, err) == (0, "")
    assert out.startswith("PASS: ")
