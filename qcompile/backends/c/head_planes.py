"""A convolution with few filters of one tap that reads bit planes, as the last one of a network.

Its sums are wanted as numbers and not as bits, so carry-save adders do not help. But ternary
weights only count: unpacking the planes to bytes would take longer than counting their bits.
"""

from __future__ import annotations

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.epilogues import constants_type, is_flat, plan_epilogue
from qcompile.backends.c.plane_codes import describe_planes, read_planes
from qcompile.backends.c.program import Step, kernel
from qcompile.backends.c.weights import Block, plan_rows
from qcompile.ops import Conv
from qcompile.passes.choose_kernels import sums_type

MOST_FILTERS = 8
MOST_COUNT = 255
"""Of the bits of one pixel: they are counted in a byte."""


def counts_planes(context: Context, op: Conv) -> bool:
    """`op` reads planes and has this form."""
    value, weights = op.inputs[0], context.graph.constants[op.inputs[1]]
    layout = context.planes.values.get(value)
    if layout is None or value in context.joined or op.output in context.planes.values:
        return False
    still = {*op.strides} == {1} and {*op.pads_begin, *op.pads_end} == {0}
    return (
        still
        and op.groups == 1
        and weights.shape[2:] == (1, 1)
        and weights.shape[0] <= MOST_FILTERS
        and op.epilogue is not None
        and not context.type(op.inputs[1]).is_float
        and int(np.abs(weights).max()) <= 1
        and weights.shape[1] * layout.planes <= MOST_COUNT
    )


def plan_head_planes(context: Context, step: Step, op: Conv, y: str) -> None:
    """Counts the bits of the planes; see `counts_planes` for what is possible. `y`: the output."""
    value, out = op.inputs[0], context.type(op.output).shape
    weights = context.graph.constants[op.inputs[1]]
    shape, sums = context.type(value).shape, sums_type(op)
    x = read_planes(step, "x", value)
    described = describe_planes(step, "image", shape, context.planes.values[value])
    epilogue = plan_epilogue(context, step, op, out[1])
    portable = step.variant(None, "bit planes, counted")
    block = Block(weights.reshape(out[1], shape[1]), 1, out[1], shape[1])
    plan_rows(context, step, portable, op.inputs[1], "int8_t", [block], "row")
    item = kernel(
        "head_planes",
        [context.ctype(op.output)],
        requires=[epilogue],
        suffix="_" + epilogue.function,
        line="int8_t",
        sums=sums,
        y=context.ctype(op.output),
        flat=is_flat(op),
        most_filters=MOST_FILTERS,
        constants=constants_type(epilogue),
        epilogue=epilogue.function,
    )
    portable.calls.append(
        f"{portable.use(item)}({described}, {x}, {out[1]}, weights, &epilogue, {y});"
    )
