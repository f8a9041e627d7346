"""Where the tensors and the scratch memory of a program lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qcompile.backends.c.layout import WORK, scratch_name, value_name
from qcompile.backends.c.program import ARENA_ALIGNMENT, Step
from qcompile.backends.c.row_groups import RowLayout
from qcompile.graph import Graph
from qcompile.passes.place_planes import BitPlanes, memory_bytes
from qcompile.passes.plan_buffers import Buffer, BufferPlan, PlanBuffers


def plan_arena(
    graph: Graph,
    steps: Sequence[Step],
    keep_all: bool,
    rows: RowLayout | None,
    planes: Mapping[str, BitPlanes],
) -> BufferPlan:
    """Places activations and scratch memory.

    Args:
        graph: what the steps compute.
        steps: in order.
        keep_all: every activation, whole, lives to the end, and what steps keep for taps.
        rows: how the steps go by rows, if they do: what a group writes or reads lives as long as
            the group, and only some rows of it.
        planes: values that lie in bit planes.
    """
    # Who reads a value: the steps whose pointers name it (a joined concatenation has no step).
    readers: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        for pointer in step.pointers:
            if pointer.value is not None:
                readers.setdefault(pointer.value, []).append(index)
    public = {*graph.inputs, *graph.outputs}
    end = len(steps)
    buffers = []
    for index, step in enumerate(steps):
        for value in step.outputs:
            if value in public:
                continue
            first, last = (0, end) if keep_all else (index, max([index, *readers.get(value, [])]))
            size = memory_bytes(graph.types[value], planes.get(value))
            if rows is not None and not keep_all:
                first, last = rows.span(first)[0], rows.span(last)[1]
                size = size // rows.rows.get(value, 1) * rows.held.get(value, 1)
            over = () if keep_all else tuple(value_name(name) for name in step.in_place)
            buffers.append(Buffer(value_name(value), size, first, last, over))
        for pointer in step.pointers:
            if pointer.value is None:
                name = scratch_name(index, pointer.name)
                buffers.append(Buffer(name, pointer.scratch_bytes, index, index))
        if keep_all:
            for kept in step.kept:
                buffers.append(Buffer(scratch_name(index, kept.name), kept.size, 0, end))
        if step.work_bytes:
            buffers.append(Buffer(scratch_name(index, WORK), step.work_bytes, index, index))
    plan = PlanBuffers(ARENA_ALIGNMENT).run(buffers)
    return BufferPlan(plan.offsets, max(plan.size, ARENA_ALIGNMENT))
