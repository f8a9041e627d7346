"""What runs inside a convolution, on rows that it has just written: 2x2 maxima and class maps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from qcompile.backends.c.context import Context
from qcompile.backends.c.levels import Level
from qcompile.backends.c.program import Kernel, Setting, Step, Variant, kernel
from qcompile.ops import ArgMax, Conv, MaxPool, Threshold

WINDOW = 2
"""Rows of a maximum."""


@dataclass(frozen=True)
class Follower:
    """A kernel `f(shape, x, first, end, y)` that computes some rows of its output.

    Attributes:
        kernel: the function; portable, and compiled once more for each level.
        struct: C type of its descriptor.
        shape: the descriptor.
        y: the output pointer.
        ctype: C type of the output.
        together: rows of the convolution for each row of the output.
        rows: of the output.
    """

    kernel: Kernel
    struct: str
    shape: str
    y: str
    ctype: str
    together: int
    rows: int

    @property
    def arguments(self) -> list[str]:
        """What drivers that run it are given, behind their own arguments."""
        return [self.shape, self.y]

    def run_whole(self, variant: Variant, x: str) -> None:
        """Behind the calls of a variant whose driver does not run it, on all rows."""
        function = variant.use(self.kernel.at(variant.level))
        variant.calls.append(f"{function}({self.shape}, {x}, 0, {self.rows}, {self.y});")


def pool_kernel(ctype: str) -> Kernel:
    """Maximum over windows that neither overlap nor leave the input."""
    return kernel("max_pool_tiles", [ctype], type=ctype)


def arg_max_kernel(op: ArgMax, x: str, y: str) -> Kernel:
    """Index of the largest element along an axis."""
    suffix = "_last" if op.last else ""
    return kernel("arg_max", [x, y], suffix=suffix, x=x, y=y, last=op.last)


def with_follower(driver: Kernel, follower: Follower | None, level: Level | None = None) -> Kernel:
    """A driver that runs the follower; None is an answer that its template needs, too."""
    if follower is None:
        return dataclasses.replace(driver, settings=(*driver.settings, ("follower", "")))
    item = follower.kernel.at(level)
    settings: dict[str, Setting] = {
        "follower": item.function,
        "follower_shape": follower.struct,
        "follower_type": follower.ctype,
        "together": follower.together,
    }
    return dataclasses.replace(
        driver,
        function=f"{driver.function}_{follower.kernel.function}",
        settings=(*driver.settings, *settings.items()),
        requires=(*driver.requires, item),
    )


def plan_follower(context: Context, step: Step, op: Conv) -> Follower | None:
    """Declares descriptor and output of what follows `op`, if anything does."""
    after = context.followers.get(op.name)
    if after is None:
        return None
    step.follower = after
    shape, out = context.type(op.output).shape, context.type(after.output).shape
    x_type, y_type = context.ctype(op.output), context.ctype(after.output)
    y = context.write(step, "followed", after.output)
    match after:
        case MaxPool():
            item = pool_kernel(x_type)
            described = step.shape(
                "pool_shape",
                "after",
                size=shape[2:],
                out_size=out[2:],
                kernel=after.kernel,
                stride=after.strides,
                pad=after.pads_begin,
                dilation=after.dilations,
                channels=shape[1],
            )
            return Follower(item, "pool_shape", described, y, y_type, WINDOW, out[2])
        case ArgMax():
            item = arg_max_kernel(after, x_type, y_type)
            described = step.shape("arg_max_shape", "after", outer=shape[3], size=shape[1], inner=1)
            return Follower(item, "arg_max_shape", described, y, y_type, 1, shape[2])
        case Threshold():
            item = kernel("threshold_rows", [x_type, y_type], x=x_type, y=y_type)
            described = step.shape(
                "threshold_rows_shape", "after", width=shape[3], limit=after.code_limit or 0
            )
            return Follower(item, "threshold_rows_shape", described, y, y_type, 1, shape[2])
    raise TypeError(f"{after.label()}: does not follow a convolution")
