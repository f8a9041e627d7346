"""Loops over rows: one operator for itself, or a group whose operators take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.c.program import Role, Step, kernel
from qcompile.backends.c.rows import RowOutput
from qcompile.graph import Graph
from qcompile.passes.fuse_rows import FuseRows, RowOp, RowPlan


@dataclass(frozen=True)
class RowLayout:
    """How the steps of a program go by rows.

    Attributes:
        groups: steps that take turns, as (first, end); all steps are in one.
        held: value -> rows of it in memory, of those written row by row.
        rows: value -> all of its rows.
    """

    groups: tuple[tuple[int, int], ...]
    held: Mapping[str, int]
    rows: Mapping[str, int]

    def span(self, index: int) -> tuple[int, int]:
        """The group of a step: its first and its last step."""
        return next((first, end - 1) for first, end in self.groups if first <= index < end)


def held_macro(step: Step) -> str:
    """Name of the constant that says how many rows of a step's output are in memory."""
    return f"ROWS_{step.prefix.upper()}"


def group_rows(
    graph: Graph, steps: Sequence[Step], outputs: Sequence[RowOutput | None]
) -> RowLayout:
    """Chooses the groups of `steps` and adds their loops.

    Args:
        graph: what they compute.
        steps: planned by `plan_row_step`.
        outputs: what that returned.
    """
    ops = [_row_op(graph, step, rows) for step, rows in zip(steps, outputs, strict=True)]
    plan = FuseRows(frozenset((*graph.inputs, *graph.outputs))).run(ops)
    for first, end in plan.groups:
        if end - first > 1:
            _add_group(steps[first:end], ops[first:end])
        elif outputs[first] is not None:
            steps[first].opening.append(f"for (int32_t row = 0; row < {ops[first].rows}; ++row)")
    return _layout(steps, outputs, plan)


def _layout(steps: Sequence[Step], outputs: Sequence[RowOutput | None], plan: RowPlan) -> RowLayout:
    found = {
        step.op.output: rows.rows
        for step, rows in zip(steps, outputs, strict=True)
        if rows is not None
    }
    return RowLayout(plan.groups, {value: plan.rings[value] for value in found}, found)


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
        scratch=sum(p.scratch_bytes for p in step.pointers if p.value is None) + step.work_bytes,
    )


def _add_group(steps: Sequence[Step], ops: Sequence[RowOp]) -> None:
    """The steps become cases of a switch in a loop that always lets the last one go on that can."""
    index = {op.output: position for position, op in enumerate(ops)}
    rules: list[int] = []
    for op in reversed(ops):
        inside = [reach for reach in op.sources or () if reach.source in index]
        rules += [op.rows, len(inside)]
        for reach in inside:
            rules += [index[reach.source], reach.rows, reach.step, reach.ahead, reach.divisor]
    head = steps[0]
    table = head.table("turns", "int32_t", rules, Role.TABLE, "who computes a row next")
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
