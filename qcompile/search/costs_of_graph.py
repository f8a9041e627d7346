"""What an integer graph costs on its target, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcompile.backends.c.backend import CBackend
from qcompile.errors import UnsupportedError
from qcompile.graph import Graph
from qcompile.multiplications import weight_type
from qcompile.ops import WEIGHTED
from qcompile.options import CompileOptions, Target
from qcompile.report.formats import element_bits
from qcompile.report.layers import layer_rows
from qcompile.search.measured import Measured

if TYPE_CHECKING:
    from qcompile.report.layers import LayerRow


def costs_of(graph: Graph, options: CompileOptions) -> Measured:
    """The costs of an integer graph; what it is worth is left out.

    Raises:
        UnsupportedError: the target refuses operators.
        QCompileError: the device of an accelerator is too small.
    """
    rows = layer_rows(graph, graph, {})
    bops = sum(row.bops for row in rows)
    if options.target is Target.HDL:
        return _hdl(graph, options, rows, bops)
    backend = CBackend(mcu=options.mcu)
    problems = backend.check(graph)
    if problems and options.target is Target.C:
        raise UnsupportedError(problems, "the C back end")
    if problems:
        return Measured(bytes=_nominal(rows), bops=bops, mean_wbits=_mean(graph))
    planned = backend.plan(graph)
    stored = sum(sum(step.bytes_by_role.values()) for step in planned.steps)
    arena = planned.arena().size
    return Measured(bytes=stored, bops=bops, arena=arena, mean_wbits=_mean(graph))


def _hdl(graph: Graph, options: CompileOptions, rows: tuple[LayerRow, ...], bops: int) -> Measured:
    from qcompile.target_hdl import hdl_backend

    backend = hdl_backend(options)
    plan = backend.plan(graph)
    needs = backend.needs(plan)
    return Measured(
        bytes=_nominal(rows),
        bops=bops,
        luts=needs.get("luts"),
        ram_bits=plan.design.ram_bits,
        multipliers=needs.get("multipliers", plan.design.multipliers),
        fps=round(options.clock * 1e6 / plan.speed.interval, 3),
        mean_wbits=_mean(graph),
    )


def _nominal(rows: tuple[LayerRow, ...]) -> int:
    return sum(row.weight_bytes for row in rows)


def _mean(graph: Graph) -> float:
    """Mean bits of the weights, biases and scales left out."""
    found = ((op, weight_type(graph, op)) for op in graph.ops)
    pairs = [
        (kind.size, element_bits(kind))
        for op, kind in found
        if kind is not None and isinstance(op, WEIGHTED)
    ]
    total = sum(count for count, _ in pairs)
    return sum(count * bits for count, bits in pairs) / total if total else 0.0
