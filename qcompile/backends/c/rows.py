"""Operators that compute one row of their output at a time, for targets with little memory.

Between two such operators lie only as many rows as are needed: a ring, row i at place i modulo its
length. What works element by element is planned as for an image of one row, with the row's place
added to its pointers; windows and layers have kernels of their own that know of rings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qcompile import ops
from qcompile.backends.c import elementwise, movement, reductions, row_layers, row_storage
from qcompile.backends.c.context import Context
from qcompile.backends.c.program import Step
from qcompile.backends.c.row_context import RowContext
from qcompile.backends.c.table import PLANNERS
from qcompile.graph import Graph, Op
from qcompile.passes.place_tensors import channels_last
from qcompile.passes.row_reach import Reach, reaches, row_axis
from qcompile.passes.store_rows import PackRows, UnpackRows

Plan = Callable[[RowContext, Step, Any], None]

ROW_PLANNERS: Mapping[type[Op], Plan] = {
    ops.Conv: row_layers.plan_conv,
    ops.ConvTranspose: row_layers.plan_conv_transpose,
    ops.MaxPool: movement.plan_max_pool,
    ops.AveragePool: reductions.plan_average_pool,
    ops.NearestResize: movement.plan_nearest_resize,
    ops.LinearResize: reductions.plan_linear_resize,
    ops.Add: elementwise.plan_sum,
    ops.Mul: elementwise.plan_sum,
    ops.Div: elementwise.plan_sum,
    ops.Affine: elementwise.plan_affine,
    ops.Rescale: elementwise.plan_rescale,
    ops.Lookup: elementwise.plan_lookup,
    ops.Quantize: elementwise.plan_quantize,
    ops.Dequantize: elementwise.plan_dequantize,
    ops.Threshold: elementwise.plan_threshold,
    ops.Concat: movement.plan_concat,
    PackRows: row_storage.plan_pack_rows,
    UnpackRows: row_storage.plan_unpack_rows,
    ops.Softmax: reductions.plan_softmax,
    ops.ArgMax: reductions.plan_arg_max,
    **{kind: elementwise.plan_pointwise for kind in ops.POINTWISE},
}
"""The operators that go by rows; the others write their whole output at once."""

CHANNELS_LAST = (
    ops.Conv,
    ops.ConvTranspose,
    ops.MaxPool,
    ops.AveragePool,
    ops.NearestResize,
    ops.LinearResize,
)
"""Operators whose row kernels read pixels of many channels, in this order only (all but `conv`)."""

BLOCKED: Mapping[type[Op], Plan] = {
    ops.Conv: row_layers.plan_conv,
    ops.ConvTranspose: row_layers.plan_conv_transpose,
    ops.MatMul: row_layers.plan_matmul,
}
"""Layers that unpack a few filters at a time, whether they go by rows or not."""


@dataclass(frozen=True)
class RowOutput:
    """How a step goes by rows.

    Attributes:
        rows: of its output.
        reaches: what a row needs of each activation.
    """

    rows: int
    reaches: tuple[Reach, ...]


def plan_row_step(
    context: Context, step: Step, op: Op, held: Mapping[str, str]
) -> RowOutput | None:
    """Fills `step` with what computes row `row`, or with everything at once.

    Args:
        context: the graph and its kernels.
        step: empty.
        op: its operator.
        held: for every activation in memory how many rows of it there are, as C.

    Returns:
        None if the operator does not go by rows.
    """
    if not _has_row_kernel(context, op):
        PLANNERS[type(op)].plan(context, step, op)
        return None
    values = _reads(context, op)
    found = reaches(context.graph, op, values) if type(op) in ROW_PLANNERS else None
    axes = {} if found is None else _axes(context.graph, op, values)
    fields = {item.name: getattr(context, item.name) for item in dataclasses.fields(Context)}
    view = RowContext(**fields, axes=axes, held=held)
    if found is not None and op.output in axes:
        ROW_PLANNERS[type(op)](view, step, op)
        return RowOutput(context.type(op.output).shape[row_axis(op)], found)
    if type(op) in BLOCKED:
        step.locals.append("const int32_t row = 0;")
        BLOCKED[type(op)](dataclasses.replace(view, axes={}), step, op)
    else:
        PLANNERS[type(op)].plan(context, step, op)
    return None


def _has_row_kernel(context: Context, op: Op) -> bool:
    """Layers of integers have; windows only where their input lies as their kernels read it."""
    if type(op) in BLOCKED and context.graph.output_type(op).is_float:
        return False
    if type(op) not in CHANNELS_LAST:
        return True
    if isinstance(op, ops.Conv) and context.choices[op.name].kernel == "conv":
        return True
    value = op.inputs[0]
    shape = context.type(value).shape
    return context.placements[value].same_memory(channels_last(len(shape)), shape)


def _reads(context: Context, op: Op) -> list[str]:
    """The activations that `op` reads: of a joined concatenation its parts."""
    found: list[str] = []
    for value in op.inputs:
        if value in context.joined:
            found += context.joined[value].inputs
        elif not context.graph.is_constant(value):
            found.append(value)
    return list(dict.fromkeys(found))


def _axes(graph: Graph, op: Op, values: list[str]) -> dict[str, int]:
    """The axis of rows of each activation that has more than one."""
    axes = {value: 2 for value in values} | {op.output: row_axis(op)}
    return {value: axis for value, axis in axes.items() if graph.types[value].shape[axis] > 1}
