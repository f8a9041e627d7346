"""manifest.json: what a machine (or a firmware engineer) needs to know of an accelerator."""

from __future__ import annotations

import json
from typing import Any

from qcompile.backends.hdl.emit_request import EmitRequest, LayerRow, Port
from qcompile.hw.axi_stream import data_bits, element_bytes
from qcompile.hw.control import register_map
from qcompile.hw.top import LITE_IN, Top
from qcompile.types import q_format

FORMAT = "qcompile-hdl"
FORMAT_VERSION = 1
ORDER = "NHWC: rows, columns, channels innermost; lane 0 of a beat has the lowest channel"


def manifest(request: EmitRequest, top: Top) -> dict[str, Any]:
    """The content of manifest.json; docs/hdl-files.md describes the keys."""
    design = request.design
    depths = request.fifo_depths
    clock_hz = request.clock * 1e6
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "network": request.network,
        "top": request.top,
        "build": f"0x{request.build:08x}",
        "metadata": dict(request.metadata),
        "clock_mhz": request.clock,
        "device": None if request.device is None else request.device.name,
        "performance": {
            "exact": request.exact,
            "interval_cycles": request.interval,
            "latency_cycles": request.latency,
            "frames_per_second": round(clock_hz / request.interval, 3),
            "latency_seconds": round(request.latency / clock_hz, 9),
            "bottleneck": request.bottleneck,
        },
        "resources": {
            "ram_bits": design.ram_bits,
            "multipliers": design.multipliers,
            "estimate": dict(request.estimate),
        },
        "inputs": [_tensor(port) for port in request.input_ports],
        "outputs": [_tensor(port) for port in request.output_ports],
        "ports": _ports(request, top),
        "registers": [
            {"name": item.name, "offset": item.offset, "access": item.access, "text": item.text}
            for item in register_map(len(request.inputs), len(request.outputs))
        ],
        "layers": [_layer(request, layer) for layer in request.layers],
        "fifos": [
            {
                "node": node.name,
                "value": value_of(request, node.inputs[0]),
                "depth": depths[node.name],
                "minimum": request.fifo_minimum.get(node.name),
                "beat_bits": int(node.block.inputs[0].layout.size),
                "ram_bits": node.block.ram_bits,
            }
            for node in design.nodes
            if node.name in depths
        ],
        "nodes": [
            {
                "name": node.name,
                "block": type(node.block).__name__,
                "cycles": node.block.cycles,
                "ram_bits": node.block.ram_bits,
                "multipliers": node.block.multipliers,
            }
            for node in design.nodes
        ],
    }


def manifest_text(request: EmitRequest, top: Top) -> str:
    """manifest.json."""
    return json.dumps(manifest(request, top), indent=2) + "\n"


def value_of(request: EmitRequest, channel: str) -> str | None:
    """The value of the graph that a channel carries, found behind forks and FIFOs."""
    values: dict[str, str] = {}
    for value, carrier in request.design.taps.items():
        values.setdefault(carrier, value)
    for tensor, name in zip(request.inputs, request.design.inputs, strict=True):
        values.setdefault(name, tensor.value)
    writers = request.design.writers
    while channel not in values:
        if channel not in writers or len(writers[channel].inputs) != 1:
            return None
        channel = writers[channel].inputs[0]
    return values[channel]


def _tensor(port: Port) -> dict[str, Any]:
    stream = port.stream
    element = stream.element
    scale = port.scale
    return {
        "name": port.tensor.value,
        "port": port.name,
        "shape": list(port.tensor.kind.shape),
        "element": {
            "bits": element.bits,
            "signed": element.signed,
            "low": element.low,
            "high": element.high,
            "bytes": element_bytes(stream),
        },
        "scale": scale,
        "fixed_point": None if scale is None else q_format(element, scale),
        "order": ORDER,
        "lanes": stream.lanes,
        "beats": stream.beats,
    }


def _layer(request: EmitRequest, layer: LayerRow) -> dict[str, Any]:
    return {
        "name": layer.name,
        "operator": layer.operator,
        "kind": layer.kind,
        "fold": None if layer.fold is None else {"pe": layer.fold.pe, "simd": layer.fold.simd},
        "cycles": layer.cycles,
        "latency": layer.latency,
        "utilisation": round(layer.cycles / request.interval, 4),
        "ram_bits": layer.ram_bits,
        "multipliers": layer.multipliers,
        "estimate": dict(layer.estimate),
        "nodes": list(layer.nodes),
    }


def _ports(request: EmitRequest, top: Top) -> list[dict[str, Any]]:
    """Every port of the top module with its width and meaning."""
    streams = {port.name: port for port in (*request.input_ports, *request.output_ports)}
    found = []
    for name, member in top.signature.members.items():
        prefix, _, signal = name.rpartition("_")
        found.append(
            {
                "name": name,
                "direction": "input" if member.flow.name == "In" else "output",
                "width": int(member.shape) if isinstance(member.shape, int) else 1,
                "text": _meaning(name, signal, streams.get(prefix)),
            }
        )
    return found


def _meaning(name: str, signal: str, port: Port | None) -> str:
    if name == "aclk":
        return "clock, rising edge"
    if name == "aresetn":
        return "reset, low, synchronous to aclk"
    if port is None:
        side = "from the master" if signal in LITE_IN else "to the master"
        return f"AXI4-Lite {signal}, {side}"
    if signal == "tdata":
        stream = port.stream
        each = 8 * element_bytes(stream)
        extension = "sign" if stream.element.signed else "zero"
        return (
            f"'{port.tensor.value}': {stream.lanes} channel(s) a beat in {data_bits(stream)} bits, "
            f"{stream.element} {extension}-extended to {each} bits each"
        )
    return {
        "tvalid": "a beat is offered",
        "tready": "the beat is taken",
        "tlast": "last beat of a frame",
    }[signal]
