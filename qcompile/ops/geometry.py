"""Shape arithmetic shared by the operators that slide a window over the spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qcompile.errors import ShapeError
from qcompile.graph import Op
from qcompile.types import Shape


def window_output(
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    pad_begin: int,
    pad_end: int,
    ceil_mode: bool = False,
) -> int:
    """Positions of a dilated window along one axis; may be below 1 when the window does not fit.

    With `ceil_mode` a last window may hang over the end, but must start inside the input or its
    front padding (the rule of ONNX and of torch).
    """
    extent = dilation * (kernel - 1) + 1
    room = size + pad_begin + pad_end - extent
    if not ceil_mode:
        return room // stride + 1
    count = math.ceil(room / stride) + 1
    if (count - 1) * stride >= size + pad_begin:
        count -= 1
    return count


def sliding_shape(
    op: Op,
    shape: Shape,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    ceil_mode: bool = False,
) -> Shape:
    """Spatial output shape of a window over `shape` ([1, C, *spatial]).

    Raises:
        ShapeError: rank and window do not match, or the window does not fit.
    """
    spatial = shape[2:]
    if len(spatial) != len(kernel) or len(spatial) == 0:
        raise ShapeError(
            f"{op.label()}: input of shape {list(shape)} has {len(spatial)} spatial axes but the "
            f"kernel has {len(kernel)}; check the model's shapes"
        )
    result = tuple(
        window_output(size, k, stride, dilation, begin, end, ceil_mode)
        for size, k, stride, dilation, begin, end in zip(
            spatial, kernel, strides, dilations, pads_begin, pads_end, strict=True
        )
    )
    if min(result) < 1:
        raise ShapeError(
            f"{op.label()}: kernel {list(kernel)} does not fit the input of shape {list(shape)}; "
            f"use a larger --input-shape"
        )
    return result


def broadcast_shape(op: Op, shapes: Sequence[Shape]) -> Shape:
    """The numpy broadcast of several shapes.

    Raises:
        ShapeError: they do not broadcast.
    """
    rank = max(len(shape) for shape in shapes)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise ShapeError(
                f"{op.label()}: shapes {[list(s) for s in shapes]} do not broadcast; "
                f"check --input-shape (sizes usually must divide by 2**depth)"
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)
