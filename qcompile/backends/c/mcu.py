"""Programs for microcontrollers: rows instead of tensors, and what else saves memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qcompile.backends.c.context import Context
from qcompile.backends.c.planned import Planned, step_prefix
from qcompile.backends.c.program import Step
from qcompile.backends.c.row_groups import group_rows, held_macro
from qcompile.backends.c.rows import RowOutput, plan_row_step
from qcompile.graph import Graph, Op
from qcompile.multiplications import multiplications
from qcompile.packing import TernaryPacking
from qcompile.passes.choose_kernels import ChooseKernels
from qcompile.passes.fuse_attention import FuseAttention
from qcompile.passes.join_concats import JoinConcats
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.passes.store_rows import Extended, cone, with_packed, with_recomputed
from qcompile.types import Shape

FAR_ROWS = 6
"""A reader for which more rows must be held is far."""
MOST_AGAIN = 1 / 8
"""Of all multiplications, how many more there may be because rows are computed again."""
TRIES = 3
"""Tensors of which is tried whether computing them again saves memory, the largest first."""


def plan_rows(graph: Graph, ternary: TernaryPacking, keeps_attention: bool = False) -> Planned:
    """The program that needs the smallest arena.

    Three things are tried one after the other and kept if they help: rows between operators, far
    rows computed again from the input, far rows stored without the unused bits of their bytes.
    """
    extended = Extended(graph, {})
    best = planned_by_rows(extended, ternary, keeps_attention)
    allowed = MOST_AGAIN * sum(multiplications(graph, op) for op in graph.ops)
    for value in list(_far(best))[:TRIES]:
        readers = _far(best).get(value)
        if readers is None:
            continue
        again = with_recomputed(extended, cone(extended.graph, value), readers)
        if again.multiplications > allowed:
            continue
        planned = planned_by_rows(again, ternary, keeps_attention)
        if planned.arena().size < best.arena().size:
            best, extended = planned, again
    for value in list(_far(best))[:TRIES]:
        readers = _far(best).get(value)
        denser = with_packed(extended, value, readers) if readers else None
        if denser is None:
            continue
        planned = planned_by_rows(denser, ternary, keeps_attention)
        if planned.arena().size < best.arena().size:
            best, extended = planned, denser
    return best


def planned_by_rows(
    extended: Extended, ternary: TernaryPacking, keeps_attention: bool = False
) -> Planned:
    """One step for each operator, by rows where that is possible; all of `extended` runs."""
    graph = extended.graph
    choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
    joined = JoinConcats().run(graph, choices, placements)
    attention = FuseAttention().run(graph)
    inside = {*joined, *(op.output for item in attention.values() for op in item.inside)}
    context = Context(
        graph,
        choices,
        placements,
        ternary,
        joined,
        (),
        attention=attention,
        keeps_attention=keeps_attention,
    )
    held = {value: str(image_rows(graph.types[value].shape)) for value in graph.inputs}
    steps: dict[str, Step] = {}
    outputs: list[RowOutput | None] = []
    for index, op in enumerate(graph.ops):
        if op.output in inside:
            continue
        step = Step(op, step_prefix(index, op))
        origin = extended.origins.get(op.name)
        if origin in steps:
            step.shared = steps[origin].tables
        held[op.output] = held_macro(step)
        output = plan_row_step(context, step, op, held)
        if output is None or op.output in graph.outputs:
            held[op.output] = str(image_rows(graph.types[op.output].shape))
        steps[op.name] = step
        outputs.append(output)
    every = list(steps.values())
    rows = group_rows(graph, every, outputs, extended.added)
    return Planned(graph, every, rows, extended.origins, extended.multiplications)


def _far(planned: Planned) -> Mapping[str, frozenset[str]]:
    """Value -> the operators that read its rows much later than it is written; those that take
    most memory first. Only of values written by rows."""
    rows, graph = planned.rows, planned.graph
    assert rows is not None
    found = {}
    for value, held in rows.held.items():
        added = graph.producers[value].name in planned.origins
        if value in graph.outputs or held <= FAR_ROWS or added:
            continue
        waits = {
            reader.name: max(
                (rows.waits.get((value, output), held) for output in _outputs(planned, reader)),
                default=held,
            )
            for reader in graph.consumers[value]
        }
        far = frozenset(name for name, wait in waits.items() if wait > FAR_ROWS)
        if far:
            size = graph.types[value].storage_bytes // rows.rows[value] * held
            found[value] = (size, far)
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    return {value: far for value, (_, far) in ordered}


def _outputs(planned: Planned, reader: Op) -> Iterator[str]:
    """The outputs of the steps that read for `reader`: its own, or of those it is joined to."""
    if any(step.op.name == reader.name for step in planned.steps):
        yield reader.output
        return
    for op in planned.graph.consumers[reader.output]:
        yield op.output


def image_rows(shape: Shape) -> int:
    """Rows of an image [1, C, H, W], 1 for what is none."""
    return shape[2] if len(shape) == 4 else 1
