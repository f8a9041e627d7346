"""Every file of an emitted accelerator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.names import comment_lines, comment_text
from qcompile.backends.hdl.emit_manifest import manifest_text
from qcompile.backends.hdl.emit_picture import picture
from qcompile.backends.hdl.emit_request import EmitRequest, Port
from qcompile.backends.hdl.emit_vectors import vector_file, vector_files
from qcompile.backends.hdl.emit_verilog import verilog
from qcompile.entry_name import check_entry
from qcompile.hw.accelerator import Accelerator
from qcompile.hw.axi_stream import data_bits
from qcompile.hw.control import IDENTITY, address
from qcompile.hw.top import Top

_CONSTRAINTS = {
    "ecp5": ("lpf", 'FREQUENCY PORT "aclk" {clock} MHZ;'),
    "ice40": ("pcf", "set_frequency aclk {clock}"),
    "xc7": ("xdc", "create_clock -name aclk -period {period} [get_ports aclk]"),
    "xcup": ("xdc", "create_clock -name aclk -period {period} [get_ports aclk]"),
}
_ANY_CONSTRAINTS = ("sdc", "create_clock -name aclk -period {period} [get_ports {{aclk}}]")
_SYNTHESIS = {
    "ecp5": "synth_ecp5",
    "ice40": "synth_ice40 -dsp",
    "xc7": "synth_xilinx -family xc7",
    "xcup": "synth_xilinx -family xcup",
    "gowin": "synth_gowin",
}
DEADLOCK_MARGIN = 10_000
"""Cycles beyond four frames without an output beat after which the testbench gives up."""


def make_top(request: EmitRequest) -> Top:
    """The component that is emitted."""
    return Top(
        Accelerator(request.design),
        [(port.name, port.stream) for port in request.input_ports],
        [(port.name, port.stream) for port in request.output_ports],
        request.build,
    )


def emit(request: EmitRequest) -> Artifacts:
    """All files; the same request gives the same bytes.

    Raises:
        UsageError: `request.entry` is no identifier.
        DataError: a test vector does not fit.
        ToolError: Yosys failed.
    """
    check_entry(request.entry, hdl=True)
    entry = request.entry
    vectors = vector_files(request)
    top = make_top(request)
    context = _context(request, top)
    suffix, _ = constraint(request)
    text = verilog(top, request.top, entry)
    files: dict[str, str | bytes] = {
        f"{entry}.v": fill("header.v.j2", context) + text,
        f"tb_{entry}.v": fill("testbench.v.j2", context),
        f"{entry}.f": fill("files.f.j2", context),
        f"{entry}.vlt": fill("waivers.vlt.j2", context),
        f"{entry}.core": fill("fusesoc.core.j2", context),
        f"{entry}.{suffix}": fill("constraints.j2", context),
        f"{entry}_hw.py": fill("component.py.j2", context),
        "Makefile": fill("Makefile.j2", context),
        "manifest.json": manifest_text(request, top),
        "design.svg": picture(request),
        **vectors,
    }
    return Artifacts(files)


def constraint(request: EmitRequest) -> tuple[str, str]:
    """Suffix of the constraint file, and the line that gives the clock."""
    family = "" if request.device is None else request.device.family
    suffix, line = _CONSTRAINTS.get(family, _ANY_CONSTRAINTS)
    return suffix, line.format(clock=f"{request.clock:.3f}", period=f"{1e3 / request.clock:.3f}")


def _context(request: EmitRequest, top: Top) -> Mapping[str, Any]:
    """Variables of the templates."""
    suffix, line = constraint(request)
    family = "" if request.device is None else request.device.family
    inputs = [_port_context(port) for port in request.input_ports]
    outputs = [_port_context(port) for port in request.output_ports]
    limit = 4 * max(request.interval, request.latency) + DEADLOCK_MARGIN
    return {
        "entry": request.entry,
        "top": request.top,
        "network": comment_text(request.network),
        "metadata": [
            line
            for key, value in request.metadata.items()
            for line in comment_lines(f"{key}: {value}")
        ],
        "inputs": inputs,
        "outputs": outputs,
        "frames": len(request.vectors),
        "limit": limit,
        "half_period": f"{500 / request.clock:.3f}",
        "interval": request.interval,
        "exact": request.exact,
        "latency": request.latency,
        "constraint_suffix": suffix,
        "constraint_line": line,
        "constraint_comment": "//" if suffix == "lpf" else "#",
        "synthesis": _SYNTHESIS.get(family, "synth"),
        "vectors": [port["file"] for port in (*inputs, *outputs)],
        "build": f"0x{request.build:08x}",
        "identity": f"{IDENTITY:08x}",
        "address": address,
        "address_bits": top.address_bits,
    }


def _port_context(port: Port) -> dict[str, Any]:
    stream = port.stream
    element = stream.element
    return {
        "name": port.name,
        "value": comment_text(port.tensor.value, 60),
        "shape": "x".join(map(str, port.tensor.kind.shape)),
        "element": str(element),
        "low": element.low,
        "high": element.high,
        "bits": data_bits(stream),
        "beats": stream.beats,
        "lanes": stream.lanes,
        "channels": stream.channels,
        "groups": stream.groups,
        "height": stream.height,
        "width": stream.width,
        "scale": None if port.scale is None else f"{port.scale:.9g}",
        "file": vector_file(port),
    }


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("qcompile.templates", "hdl"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(name: str, context: Mapping[str, Any]) -> str:
    """One file, without trailing blanks and with no more empty lines than its language likes."""
    text = _environment().get_template(name).render(**context)
    text = re.sub(r"[ \t]+\n", "\n", text)
    kept = "\n\n\n" if name.endswith(".py.j2") else "\n\n"
    return re.sub(rf"{kept}\n+", kept, text)
