"""Planners of the operators that store rows densely."""

from __future__ import annotations

from qcompile.backends.c.program import Step, kernel
from qcompile.backends.c.row_context import RowContext
from qcompile.passes.store_rows import PackRows, UnpackRows


def plan_pack_rows(context: RowContext, step: Step, op: PackRows) -> None:
    """A row of codes into whole bytes."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    ctype = context.ctype(op.inputs[0])
    item = kernel("pack_row", [ctype], type=ctype)
    count = context.type(op.inputs[0]).size
    step.calls.append(f"{step.use(item)}({x}, {count}, {op.bits}, {y});")


def plan_unpack_rows(context: RowContext, step: Step, op: UnpackRows) -> None:
    """And back."""
    x, y = context.read(step, "x", op.inputs[0]), context.write(step, "y", op.output)
    kind, ctype = context.type(op.output), context.ctype(op.output)
    item = kernel("unpack_row", [ctype], type=ctype, signed=kind.integer.signed)
    step.calls.append(f"{step.use(item)}({x}, {kind.size}, {op.bits}, {y});")
