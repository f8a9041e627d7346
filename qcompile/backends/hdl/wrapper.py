"""Registers round a design, so that it can be placed alone and every path counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WRAPPER = "qcompile_registers"
"""Name of the module."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the design: `width` bits in or out."""

    name: str
    width: int
    output: bool


def ports_of(netlist: Mapping[str, Any], top: str) -> tuple[Port, ...]:
    """The ports in their order.

    Args:
        netlist: what `write_json` wrote.
        top: the module.

    Raises:
        ValueError: there is no such module.
    """
    module = netlist.get("modules", {}).get(top)
    if module is None:
        raise ValueError(f"no module '{top}'")
    return tuple(
        Port(name, len(port["bits"]), port["direction"] == "output")
        for name, port in module["ports"].items()
        if port["bits"]
    )


def registered(top: str, ports: Sequence[Port], clock: str, serial: bool) -> str:
    """A module around `top` with a register at every port except the clock.

    The handshakes are a cycle late and mean nothing any more; area and speed of what is inside stay
    what they are. `netlist.area_of` knows the registers by their names and leaves them out.

    Args:
        top: the module.
        ports: all of its ports.
        clock: the port that is the clock.
        serial: three pins in all, for routers that cannot place a design without pins: inputs come
            from a shift register and outputs are folded into one bit, a gate a register.

    Raises:
        ValueError: there is no port of the name of the clock.
    """
    if all(port.name != clock for port in ports):
        raise ValueError(f"'{top}' has no port '{clock}'")
    inputs = [port for port in ports if not port.output and port.name != clock]
    outputs = [port for port in ports if port.output]
    wide_in = max(sum(port.width for port in inputs), 1)
    wide_out = max(sum(port.width for port in outputs), 1)
    pins = (1, 1) if serial else (wide_in, wide_out)
    lines = [
        f"module {WRAPPER}(input clk, input [{pins[0] - 1}:0] in, output [{pins[1] - 1}:0] out);",
        f"  (* keep *) reg [{wide_in - 1}:0] qcompile_in;",
        f"  (* keep *) reg [{wide_out - 1}:0] qcompile_out;",
        f"  wire [{wide_out - 1}:0] results;",
        "  always @(posedge clk) begin",
        f"    qcompile_in <= {'qcompile_chain' if serial else 'in'};",
        "    qcompile_out <= results;",
        "  end",
    ]
    if serial:
        # Were the inputs bits of a plain shift register, the next bit would be the same as a
        # register of the design that delays this one, and one of both be optimised away. Hence the
        # copies, and the inversion.
        lines += [
            f"  (* keep *) reg [{wide_in - 1}:0] qcompile_chain;",
            "  always @(posedge clk) qcompile_chain <= ~{qcompile_chain, in};",
            f"  (* keep *) reg [{wide_out - 1}:0] qcompile_fold;",
            "  always @(posedge clk)",
            "    qcompile_fold <= {qcompile_fold, 1'b0} ^ qcompile_out;",
            f"  assign out = qcompile_fold[{wide_out - 1}];",
        ]
    else:
        lines.append("  assign out = qcompile_out;")
    connections = [f".\\{clock} (clk)"]
    for group, net in ((inputs, "qcompile_in"), (outputs, "results")):
        low = 0
        for port in group:
            connections.append(f".\\{port.name} ({net}[{low + port.width - 1}:{low}])")
            low += port.width
    lines += [f"  \\{top} design (", *(f"    {item}," for item in connections[:-1])]
    lines += [f"    {connections[-1]}", "  );", "endmodule", ""]
    return "\n".join(lines)
