"""Planners of the operators that move or compare codes in bit planes."""

from __future__ import annotations

from qcompile.backends.c.context import Context
from qcompile.backends.c.plane_codes import read_planes, write_planes
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.ops import Concat, MaxPool, NearestResize
from qcompile.passes.place_planes import PlaneCodes, plane_bytes, stripe

ROWS = "plane_rows"


def plan_pool_planes(context: Context, step: Step, op: MaxPool) -> None:
    """Maximum: the bits of a window, or-ed."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    x, y = read_planes(step, "x", op.inputs[0]), write_planes(step, "y", op.output)
    described = step.shape(
        "pool_planes_shape",
        "shape",
        planes=shape[1] * context.planes.values[op.output].planes,
        size=shape[2:],
        stripe=stripe(shape),
        out_width=out[3],
        out_stripe=stripe(out),
        window=op.kernel[1],
        stride=op.strides,
        pad=op.pads_begin,
    )
    item = kernel(
        "pool_planes",
        requires=[kernel(ROWS, shared=True)],
        suffix=f"_{op.kernel[0]}",
        kernel=op.kernel[0],
    )
    line = step.scratch("uint8_t", "line", shape[3])
    step.calls.append(f"{step.use(item)}({described}, {x}, {y}, {line});")


def plan_resize_planes(context: Context, step: Step, op: NearestResize) -> None:
    """Every output position copies the bits of one input position."""
    shape, out = context.type(op.inputs[0]).shape, context.type(op.output).shape
    x, y = read_planes(step, "x", op.inputs[0]), write_planes(step, "y", op.output)
    described = step.shape(
        "resize_planes_shape",
        "shape",
        planes=shape[1] * context.planes.values[op.output].planes,
        size=shape[2:],
        stripe=stripe(shape),
        out_size=out[2:],
        out_stripe=stripe(out),
        doubles=int(list(op.sources[1]) == [i // 2 for i in range(2 * shape[3])]),
    )
    tables = [
        step.table("rows", "int32_t", op.sources[0], Role.TABLE, "input row of each output row"),
        step.table("columns", "int32_t", op.sources[1], Role.TABLE, "likewise for columns"),
    ]
    item = kernel("resize_planes", requires=[kernel(ROWS, shared=True)])
    line = step.scratch("uint8_t", "line", shape[3])
    step.calls.append(f"{step.use(item)}({described}, {x}, {', '.join(tables)}, {y}, {line});")


def plan_concat_planes(context: Context, step: Step, op: Concat) -> None:
    """Each input's planes are copied to their channels of the output."""
    y = write_planes(step, "y", op.output)
    planes = context.planes.values[op.output].planes
    size = plane_bytes(context.type(op.output).shape)
    function = step.use(kernel("concat_planes"))
    start = 0
    for index, value in enumerate(op.inputs):
        layout, channels = context.planes.values[value], context.type(value).shape[1]
        x = read_planes(step, f"x{index}", value)
        part = step.shape(
            "concat_planes_part",
            f"part{index}",
            channels=channels,
            planes=layout.planes,
            out_planes=planes,
            plane_bytes=size,
            is_signed=int(layout.codes is PlaneCodes.SIGN),
        )
        step.calls.append(f"{function}({part}, {x}, {y} + {start * planes * size});")
        start += channels
