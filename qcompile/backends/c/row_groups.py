"""Loops over rows: one operator for itself, or a group whose operators take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.c.program import Role, Step, kernel
from qcompile.backends.c.rows import RowOutput
from qcompile.graph import Graph
from qcompile.passes.fuse_rows import FuseRows, RowOp
from qcompile.passes.store_rows import PackRows


@dataclass(frozen=True)
class RowLayout:
    """How the steps of a program go by rows.

    Attributes:
        groups: steps that take turns, as (first, end); all steps are in one.
        held: value -> rows of it in memory, of those written row by row.
        rows: value -> all of its rows.
        waits: (value, output of a reader) -> rows of it to hold for this reader, see `RowPlan`.
        added: values that the network does not have.
    """

    groups: tuple[tuple[int, int], ...]
    held: Mapping[str, int]
    rows: Mapping[str, int]
    waits: Mapping[tuple[str, str], int]
    added: frozenset[str]

    def span(self, index: int) -> tuple[int, int]:
        """The group of a step: its first and its last step."""
        return next((first, end - 1) for first, end in self.groups if first <= index < end)


def held_macro(step: Step) -> str:
    """Name of the constant that says how many rows of a step's output are in memory."""
    return f"ROWS_{step.prefix.upper()}"


def group_rows(
    graph: Graph,
    steps: Sequence[Step],
    outputs: Sequence[RowOutput | None],
    added: frozenset[str],
) -> RowLayout:
    """Chooses the groups of `steps` and adds their loops.

    Args:
        graph: what they compute.
        steps: planned by `plan_row_step`.
        outputs: what that returned.
        added: values that the network does not have.
    """
    ops = [_row_op(graph, step, rows) for step, rows in zip(steps, outputs, strict=True)]
    plan = FuseRows(frozenset((*graph.inputs, *graph.outputs))).run(ops)
    for first, end in plan.groups:
        if end - first > 1:
            _add_group(steps[first:end], ops[first:end])
        elif outputs[first] is not None:
            steps[first].opening.append(f"for (int32_t row = 0; row < {ops[first].rows}; ++row)")
    rows = {
        step.op.output: output.rows
        for step, output in zip(steps, outputs, strict=True)
        if output is not None
    }
    held = {value: plan.rings[value] for value in rows}
    return RowLayout(plan.groups, held, rows, plan.waits, added)


def _row_op(graph: Graph, step: Step, output: RowOutput | None) -> RowOp:
    size = graph.output_type(step.op).storage_bytes
    rows = 1 if output is None else output.rows
    reads = [pointer.value for pointer in step.pointers if not pointer.writes and pointer.value]
    return RowOp(
        output=step.op.output,
        rows=rows,
        row_bytes=size // rows,
        sources=None if output is None else output.reaches,
        reads=tuple(dict.fromkeys(reads)),
        eager=isinstance(step.op, PackRows),
        scratch=sum(p.scratch_bytes for p in step.pointers if p.value is None) + step.work_bytes,
    )


def _add_group(steps: Sequence[Step], ops: Sequence[RowOp]) -> None:
    """The steps become cases of a switch in a loop, see `fuse_rows.turns`."""
    index = {op.output: position for position, op in enumerate(ops)}
    places: list[int] = []
    rules: list[int] = []
    for op in ops:
        inside = [reach for reach in op.sources or () if reach.source in index]
        places.append(len(ops) + len(rules))
        rules += [op.rows, int(op.eager), len(inside)]
        for reach in inside:
            rules += [index[reach.source], reach.rows, reach.step, reach.ahead, reach.divisor]
    head = steps[0]
    table = head.table("turns", "int32_t", [*places, *rules], Role.TABLE, "who computes a row next")
    choose = head.use(kernel("next_row"))
    head.opening += [
        f"/* {len(steps)} operators take turns, row by row. */",
        "{",
        f"int32_t done[{len(steps)}] = {{ 0 }}, turn;",
        f"while ((turn = {choose}({table}, {len(steps)}, done)) >= 0) {{",
        "const int32_t row = done[turn]++;",
        "switch (turn) {",
    ]
    for position, step in enumerate(steps):
        label = "default:" if position == len(steps) - 1 else f"case {position}:"
        step.opening.append(label)
        step.closing.append("break;")
    steps[-1].closing += ["}", "}", "}"]
