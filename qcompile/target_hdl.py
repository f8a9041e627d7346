"""The accelerator as a target: what is emitted, verified, synthesised and reported.

Apart from `targets.py`, so that Amaranth is only loaded where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.footprint import Footprint
from qcompile.backends.hdl.backend import HdlBackend, HdlProgram
from qcompile.backends.hdl.emit_request import EmitRequest
from qcompile.backends.hdl.netlist import Area
from qcompile.backends.hdl.synthesize import Measurement, Synthesis, synthesize
from qcompile.backends.hdl.verify import verify
from qcompile.devices import DEVICES
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.report.hardware import HardwareReport, HardwareRow, Resources
from qcompile.sim.executor import Executor

VECTORS = 2
"""Frames that the emitted testbench runs."""


@dataclass(frozen=True)
class EmittedHdl:
    """An accelerator."""

    graph: Graph
    program: HdlProgram
    options: CompileOptions
    synthesis: Synthesis | None = None
    layer_bytes: Mapping[str, int] | None = None
    constant_bytes: int | None = None
    arena_bytes: int | None = None
    footprint: Footprint | None = None

    @property
    def artifacts(self) -> Artifacts:
        return self.program.artifacts

    @property
    def hardware(self) -> HardwareReport:
        """Cost and speed, estimated and, after `synthesize`, measured."""
        return hardware_report(self.program, self.options, self.synthesis)

    def verify(self, feeds: Sequence[Feed]) -> dict[str, Any]:
        """Simulates the whole accelerator, with and without stalls, and compares every tensor."""
        return verify(self.graph, self.program.plan.design, feeds).details()


def emit_hdl(
    graph: Graph, options: CompileOptions, metadata: Mapping[str, str], feeds: Sequence[Feed]
) -> EmittedHdl:
    """The accelerator of an integer graph; arguments and errors as `targets.emit`."""
    backend = hdl_backend(options)
    problems = backend.check(graph)
    executor = Executor(graph)
    vectors = [] if problems else [{**f, **executor.run(f, taps="all")} for f in feeds[:VECTORS]]
    program = backend.emit(graph, metadata, vectors)
    synthesis = None
    if options.synth:
        device = backend.device
        assert device is not None
        request = program.request
        verilog = program.artifacts.files[f"{options.entry}.v"]
        assert isinstance(verilog, str)
        synthesis = synthesize(verilog, request.top, device, clock=options.clock, clock_port="aclk")
    return EmittedHdl(graph, program, options, synthesis)


def hdl_backend(options: CompileOptions) -> HdlBackend:
    """The back end as the options set it up."""
    return HdlBackend(
        options.entry,
        DEVICES[options.device] if options.device is not None else None,
        options.clock,
        options.target_fps,
        options.multipliers,
        options.fold,
        options.fifos,
    )


def hardware_report(
    program: HdlProgram, options: CompileOptions, synthesis: Synthesis | None
) -> HardwareReport:
    """The figures of a program for the report."""
    plan, request = program.plan, program.request
    cycles = options.clock * 1e6
    slowest = max(layer.cycles for layer in request.layers)
    known = plan.fifo_bits()
    rows = tuple(
        HardwareRow(
            name=stage.op.name,
            fold=f"{stage.fold.pe} x {stage.fold.simd}",
            cycles=layer.cycles,
            fps=round(cycles / layer.cycles, 3),
            multipliers=layer.estimate.get("multipliers", layer.multipliers),
            luts=layer.estimate.get("luts"),
            ram_bits=layer.ram_bits,
            fifo_bits=sum(bits for edge, bits in known.items() if edge.reader == stage.op.name),
            bottleneck=layer.cycles == slowest,
        )
        for stage, layer in zip(plan.flow.stages, request.layers, strict=True)
    )
    interval = plan.speed.interval
    resources = [
        Resources(
            "estimated",
            "formulas of qcompile",
            luts=request.estimate.get("luts"),
            ffs=request.estimate.get("ffs"),
            ram_blocks=request.estimate.get("ram_blocks"),
            multipliers=request.estimate.get("multipliers", plan.design.multipliers),
            fps=round(cycles / interval, 3),
        )
    ]
    if synthesis is not None:
        for origin, measured in (
            ("post-synthesis", synthesis.synthesised),
            ("post-route", synthesis.routed),
        ):
            resources.append(_measured(origin, measured, interval))
    return HardwareReport(
        device=options.device,
        clock=options.clock,
        interval=interval,
        latency=plan.speed.latency,
        exact=request.exact,
        multipliers=request.estimate.get("multipliers", plan.design.multipliers),
        ram_bits=plan.design.ram_bits,
        fifo_bits=sum(known.values()),
        fifo_minimum_bits=plan.fifo_minimum_bits(),
        rows=rows,
        resources=tuple(resources) if options.device is not None else (),
        usage=_usage(request),
    )


def _usage(request: EmitRequest) -> dict[str, float]:
    """Estimated shares of the device; empty without one."""
    device, estimate = request.device, request.estimate
    if device is None:
        return {}
    pairs = {
        "LUTs": (estimate["luts"], device.luts),
        "block RAMs": (estimate["ram_blocks"], device.ram_blocks),
        "multipliers": (estimate["multipliers"], device.multipliers),
    }
    return {what: used / there for what, (used, there) in pairs.items() if there}


def _measured(origin: str, measured: Measurement, interval: int) -> Resources:
    area: Area | None = measured.area
    return Resources(
        origin,
        measured.tool or measured.missing,
        None if area is None else area.luts,
        None if area is None else area.ffs,
        None if area is None else area.ram_blocks,
        None if area is None else area.multipliers,
        measured.fmax,
        None if measured.fmax is None else round(measured.fmax * 1e6 / interval, 3),
    )
