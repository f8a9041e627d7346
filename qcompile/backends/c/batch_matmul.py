"""Planner of products of two computed matrices."""

from __future__ import annotations

from qcompile.backends.c.context import Context, View
from qcompile.backends.c.elementwise import broadcast_strides
from qcompile.backends.c.epilogues import constants_type, plan_epilogue, real_constant
from qcompile.backends.c.layers import tile_pixels
from qcompile.backends.c.matrices import CHUNK, Products, matrix_levels
from qcompile.backends.c.program import Role, Step, kernel
from qcompile.backends.c.token_attention import plan_token_attention
from qcompile.backends.c.weights import LENGTH_BLOCK, round_up
from qcompile.ops import BatchMatMul
from qcompile.passes.choose_kernels import choose_product
from qcompile.passes.place_tensors import natural

BATCH_LOOPS = 4
"""Loops over matrices of a batch."""


def plan_batch_matmul(context: Context, step: Step, op: BatchMatMul) -> None:
    """Dot products of rows and columns, read where they lie; attention where it is fused."""
    if op.name in context.attention:
        plan_token_attention(context, step, context.attention[op.name])
        return
    kinds = [context.type(value) for value in op.inputs]
    out = context.type(op.output).shape
    choice = choose_product(op, kinds)
    names, strides = [], []
    for name, value, kind in zip("ab", op.inputs, kinds, strict=True):
        if op.epilogue is None and context.graph.is_constant(value):
            data = real_constant(context, value)
            names.append(step.table(f"constant_{name}", "float", data, Role.WEIGHTS))
        else:
            names.append(context.read(step, name, value))
        strides.append(broadcast_strides(context.strides(value), kind.shape, out))
    y = context.write_as(step, "y", op.output, natural(len(out)))
    batch = View(out[:-2], (strides[0][:-2], strides[1][:-2])).collapsed().padded(BATCH_LOOPS)
    depth = kinds[0].shape[-1]
    length = round_up(depth, LENGTH_BLOCK)
    tile = tile_pixels(length, choice.line, out[-2])
    (a_row, a_step), (b_row, b_step) = (context.strides(value)[-2:] for value in op.inputs)
    described = step.shape(
        "batch_matmul_shape",
        "shape",
        size=batch.sizes,
        a=batch.strides[0],
        b=batch.strides[1],
        rows=out[-2],
        depth=depth,
        columns=out[-1],
        tile=tile,
        a_row=a_row,
        a_step=a_step,
        b_row=b_row,
        b_step=b_step,
    )
    epilogue = plan_epilogue(context, step, op, out[-1])
    types = ["float"] * 2 if op.epilogue is None else [context.ctype(v) for v in op.inputs]
    # Floats would be contracted into fused multiply-adds.
    levels = () if op.epilogue is None else context.levels
    for level in matrix_levels(levels):
        products = Products(op, choice, epilogue, level)
        pack = products.pack(types[1])
        item = kernel(
            "batch_matmul",
            types if choice.line == "int16_t" else [*types, choice.line],
            requires=[pack, products.dot, products.epilogue],
            suffix="_" + products.epilogue.function,
            a=types[0],
            b=types[1],
            y=context.ctype(op.output),
            line=choice.line,
            sums=choice.sums,
            pack=pack.function,
            block=products.block,
            chunk=CHUNK,
            epilogue=products.epilogue.function,
            constants=constants_type(epilogue),
            dot_tile=products.dot.function,
        ).at(level)
        variant = step.variant(level)
        columns = products.columns(out[-1])
        work = [
            variant.scratch(choice.line, "patches", tile * length),
            variant.scratch(choice.line, "columns", columns * length),
            variant.scratch(choice.sums, "sums", tile * min(columns, CHUNK)),
        ]
        arguments = f"{', '.join(names)}, &epilogue, {y}, {', '.join(work)}"
        variant.calls.append(f"{variant.use(item)}({described}, {arguments});")
