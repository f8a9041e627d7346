"""Area and clock rate of a design as the open tools measure them: yosys, and nextpnr where it can.

Nothing here is guessed. What no tool measured has a reason in place of a figure.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompile.backends.hdl.netlist import Area, area_of, wrapper_ffs
from qcompile.backends.hdl.tools import Outcome, Tool, find_tools, run
from qcompile.backends.hdl.wrapper import WRAPPER, ports_of, registered
from qcompile.devices import Device

SYNTHESIS_SECONDS = 3600.0
ROUTING_SECONDS = 3 * 3600.0
SEED = 1
"""Of the placer. Another seed gives another clock rate, a few per cent up or down."""
INSTALL = "pip install 'qcompile[synth]'"

_SYNTHESIS = {
    "ecp5": "synth_ecp5 -top {top}",
    "ice40-hx8k": "synth_ice40 -abc9 -device hx -top {top}",
    "ice40-up5k": "synth_ice40 -abc9 -dsp -device u -top {top}",
    "xc7": "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top}",
    "xcup": "synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top {top}",
}
"""Family (or device) -> the command of yosys."""

_ROUTED = {
    "ecp5": ("TRELLIS_COMB", "DP16KD", "MULT18X18D"),
    "ice40": ("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_DSP"),
}
"""Family -> what nextpnr calls LUTs, block RAMs and multipliers."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one tool measured, or why there is nothing.

    Attributes:
        tool: name and version; None if none ran to its end.
        area: what the design takes.
        fmax: clock rate in MHz; only a router gives one.
        missing: why area or clock rate are missing; '' if they are not.
        note: what the figures include.
    """

    tool: str | None = None
    area: Area | None = None
    fmax: float | None = None
    missing: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "tool": self.tool,
            "area": None if self.area is None else self.area.to_dict(),
            "fmax_mhz": self.fmax,
            "missing": self.missing or None,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Synthesis:
    """The figures of one design on one device, by origin.

    Attributes:
        device: for which.
        clock: MHz that the router was asked for.
        estimated: by formula, before any tool ran; None if nobody estimated.
        synthesised: after yosys.
        routed: after nextpnr.
        commands: what was run, in order; file names are those of a private folder.
    """

    device: Device
    clock: float
    estimated: Area | None
    synthesised: Measurement
    routed: Measurement
    commands: tuple[str, ...]

    @property
    def area(self) -> Area | None:
        """The best measured one."""
        return self.routed.area or self.synthesised.area

    @property
    def too_large(self) -> tuple[str, ...]:
        """What the device has too little of, e.g. '300 of 208 block RAMs'; by measurement."""
        area, device = self.area, self.device
        if area is None:
            return ()
        pairs = (
            (area.luts, device.luts, "LUTs"),
            (area.ffs, device.ffs, "flip-flops"),
            (area.ram_blocks, device.ram_blocks, "block RAMs"),
            (area.multipliers, device.multipliers, "multipliers"),
        )
        return tuple(f"{used} of {have} {what}" for used, have, what in pairs if used > have)

    def to_dict(self) -> dict[str, Any]:
        """For the report: nothing in it depends on time or place."""
        return {
            "device": self.device.name,
            "clock_mhz": self.clock,
            "estimated": None if self.estimated is None else self.estimated.to_dict(),
            "post_synthesis": self.synthesised.to_dict(),
            "post_route": self.routed.to_dict(),
            "too_large": list(self.too_large),
            "commands": list(self.commands),
        }


def synthesize(
    verilog: str,
    top: str,
    device: Device,
    *,
    clock: float = 100.0,
    clock_port: str = "clk",
    estimated: Area | None = None,
    files: Mapping[str, str] | None = None,
    route: bool = True,
    synthesis_seconds: float = SYNTHESIS_SECONDS,
    routing_seconds: float = ROUTING_SECONDS,
) -> Synthesis:
    """Synthesises a design alone, with a register at every port, and routes it where that is open.

    Works for single blocks and for whole accelerators: no pins are assigned, and the registers at
    the ports are not counted.

    Args:
        verilog: the source.
        top: its top module.
        device: for which.
        clock: MHz to try for.
        clock_port: the only clock of `top`.
        estimated: to be kept beside what is measured.
        files: further files that the source reads, by name.
        route: False: area after synthesis only.
        synthesis_seconds: time for each run of yosys.
        routing_seconds: time for the router.
    """
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        folder = Path(name)
        (folder / "design.v").write_text(verilog, encoding="utf-8")
        for file, content in (files or {}).items():
            (folder / file).write_text(content, encoding="utf-8")
        job = _Job(folder, top, device, clock, clock_port, route and device.place_and_route)
        synthesised = job.synthesise(synthesis_seconds)
        if synthesised.area is None:
            routed = Measurement(missing="there is no netlist to route")
        elif not device.place_and_route:
            routed = Measurement(missing=f"no open router for {device.family}: area only")
        elif not route:
            routed = Measurement(missing="not asked for")
        else:
            routed = job.route(synthesised.area, routing_seconds)
        return Synthesis(device, clock, estimated, synthesised, routed, tuple(job.commands))


class _Job:
    """One design in one folder; files of a tool that failed do not reach the next."""

    def __init__(
        self, folder: Path, top: str, device: Device, clock: float, clock_port: str, wrap: bool
    ) -> None:
        self._folder = folder
        self._top = top
        self._device = device
        self._clock = clock
        self._clock_port = clock_port
        self._wrap = wrap
        self._registers = 0
        self.commands: list[str] = []

    def synthesise(self, seconds: float) -> Measurement:
        """Tries one yosys after the other; none is believed without a netlist with cells."""
        tools = find_tools("yosys")
        reasons = [] if tools else [f"yosys is not installed; {INSTALL}"]
        for tool in tools:
            self.commands.clear()
            top, reason = self._wrapped(tool, seconds) if self._wrap else (self._top, "")
            if not reason:
                device = self._device
                command = _SYNTHESIS.get(device.name) or _SYNTHESIS[device.family]
                sources = "read_verilog design.v" + ("; read_verilog wrapper.v" * self._wrap)
                script = f"{sources}; {command.format(top=top)}"
                netlist, reason = self._yosys(tool, script, "netlist.json", seconds)
                if netlist is not None:
                    try:
                        area = area_of(netlist, top, device.family)
                    except ValueError as error:
                        reason = f"{tool} wrote a netlist with {error}"
                    else:
                        self._registers = wrapper_ffs(netlist, top, device.family)
                        return Measurement(str(tool), area)
            reasons.append(reason)
        return Measurement(missing="; ".join(reasons))

    def _wrapped(self, tool: Tool, seconds: float) -> tuple[str, str]:
        """Writes the registers round the design; returns their module, or a reason."""
        script = f"read_verilog design.v; hierarchy -check -top {self._top}; proc"
        netlist, reason = self._yosys(tool, script, "ports.json", seconds)
        if netlist is None:
            return "", reason
        serial = self._device.family == "ice40"
        try:
            ports = ports_of(netlist, self._top)
            text = registered(self._top, ports, self._clock_port, serial)
        except ValueError as error:
            return "", f"{tool} found {error}"
        (self._folder / "wrapper.v").write_text(text, encoding="utf-8")
        return WRAPPER, ""

    def _yosys(
        self, tool: Tool, script: str, result: str, seconds: float
    ) -> tuple[dict[str, Any] | None, str]:
        """Runs a script; returns the netlist it writes, or None and the reason."""
        (self._folder / result).unlink(missing_ok=True)
        arguments = ("-q", "-p", f"{script}; write_json {result}")
        outcome = self._run(tool, arguments, seconds)
        netlist = self._json(result)
        # A silent death can leave half a file, or none with exit status 0.
        if netlist is None or outcome.status is None:
            return None, outcome.reason(tool, seconds)
        return netlist, ""

    def route(self, synthesised: Area, seconds: float) -> Measurement:
        """Places and routes `netlist.json`; `synthesised` is its area."""
        device = self._device
        assert device.router is not None
        tools = find_tools(device.router)
        if not tools:
            return Measurement(missing=f"{device.router} is not installed; {INSTALL}")
        reasons = []
        for tool in tools:
            (self._folder / "report.json").unlink(missing_ok=True)
            arguments = [*device.router_options, "--json", "netlist.json"]
            arguments += ["--freq", f"{self._clock:g}", "--timing-allow-fail"]
            arguments += ["--seed", str(SEED), "--report", "report.json", "--quiet"]
            if device.family == "ecp5":
                arguments.append("--out-of-context")
            outcome = self._run(tool, arguments, seconds)
            report = self._json("report.json")
            if report is not None and outcome.status == 0:
                return self._measured(tool, report, synthesised)
            reasons.append(outcome.reason(tool, seconds))
        return Measurement(missing="; ".join(reasons))

    def _measured(self, tool: Tool, report: dict[str, Any], synthesised: Area) -> Measurement:
        used = {
            name: int(item["used"])
            for name, item in report.get("utilization", {}).items()
            if item["used"]
        }
        luts, ram_blocks, multipliers = _ROUTED[self._device.family]
        ffs, note = synthesised.ffs, ""
        if self._device.family == "ice40":
            # A logic cell is a LUT and a flip-flop; the report does not tell them apart.
            note = "LUTs: all logic cells, with those of the registers at the ports"
        else:
            ffs = used.get("TRELLIS_FF", 0) - self._registers
        area = Area(used.get(luts, 0), ffs, used.get(ram_blocks, 0), used.get(multipliers, 0), used)
        rates = [float(item["achieved"]) for item in report.get("fmax", {}).values()]
        fmax = round(min(rates), 2) if rates else None
        missing = "" if rates else f"{tool} found no path from register to register"
        return Measurement(str(tool), area, fmax, missing, note)

    def _run(self, tool: Tool, arguments: Sequence[str], seconds: float) -> Outcome:
        shown = (f'"{item}"' if " " in item else item for item in arguments)
        self.commands.append(" ".join((tool.name, *shown)))
        return run((tool.path, *arguments), self._folder, seconds)

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None
