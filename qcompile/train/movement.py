"""Operators that copy, select or order elements, in torch: one form for reals and codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.graph import Op
from qcompile.ops import (
    ArgMax,
    Concat,
    DepthToSpace,
    Gather,
    MaskedFill,
    MaxPool,
    MaxPoolIndex,
    MaxUnpool,
    NearestResize,
    Pad,
    PadMode,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.train.sums import window_views
from qcompile.train.tensors import spread

Mover = Callable[[Any, Sequence[Tensor]], Tensor]


def max_pool(op: MaxPool, inputs: Sequence[Tensor]) -> Tensor:
    """Padding and overhang never win: windows hold at least one element."""
    x = inputs[0]
    spatial = op.infer_shape([tuple(x.shape)])[2:]
    plain = not any((*op.pads_begin, *op.pads_end)) and set(op.dilations) == {1}
    if plain and x.ndim == 4 and x.is_floating_point() and not op.ceil_mode:
        return functional.max_pool2d(x, op.kernel, op.strides)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    views = window_views(
        None,
        x,
        spatial,
        lowest,
        kernel=op.kernel,
        strides=op.strides,
        dilations=op.dilations,
        begins=op.pads_begin,
    )
    best = views[0]
    for view in views[1:]:
        best = torch.maximum(best, view)
    return best


def max_pool_index(op: MaxPoolIndex, inputs: Sequence[Tensor]) -> Tensor:
    """The position of the first maximum; without a gradient."""
    x = inputs[0].detach()
    views = window_views(
        None,
        x,
        op.infer_shape([tuple(x.shape)])[2:],
        float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min,
        kernel=op.kernel,
        strides=op.strides,
        dilations=op.dilations,
        begins=op.pads_begin,
    )
    best, result = views[0], torch.zeros_like(views[0], dtype=torch.int64)
    for position, view in enumerate(views[1:], start=1):
        result = torch.where(view > best, position, result)
        best = torch.maximum(best, view)
    return result


def max_unpool(op: MaxUnpool, inputs: Sequence[Tensor]) -> Tensor:
    """Elements whose place lies outside go to one place behind the output, which is cut off."""
    x, found = inputs
    size = math.prod(op.spatial)
    inside = found < math.prod(op.kernel)
    place, rest = torch.zeros_like(found), found
    factor = 1
    for axis in reversed(range(len(op.kernel))):
        tap, rest = rest % op.kernel[axis], rest // op.kernel[axis]
        origin = torch.arange(x.shape[axis + 2], device=x.device) * op.strides[axis]
        at = spread(origin - op.pads_begin[axis], axis + 2, x.ndim) + tap * op.dilations[axis]
        inside = inside & (at >= 0) & (at < op.spatial[axis])
        place = place + at * factor
        factor *= op.spatial[axis]
    flat = torch.where(inside, place, size).flatten(2)
    result = torch.zeros((*x.shape[:2], size + 1), dtype=x.dtype, device=x.device)
    return result.scatter(2, flat, x.flatten(2))[..., :size].reshape(*x.shape[:2], *op.spatial)


def nearest_resize(op: NearestResize, inputs: Sequence[Tensor]) -> Tensor:
    """One gather for each axis that changes."""
    result = inputs[0]
    for axis, sources in enumerate(op.sources):
        if sources != tuple(range(result.shape[axis + 2])):
            chosen = torch.tensor(sources, device=result.device)
            result = torch.index_select(result, axis + 2, chosen)
    return result


def concat(op: Concat, inputs: Sequence[Tensor]) -> Tensor:
    """Side by side."""
    most = max(part.shape[0] for part in inputs)
    parts = [part.expand(most, *part.shape[1:]) for part in inputs]
    return torch.cat(parts, dim=op.axis)


def pad(op: Pad, inputs: Sequence[Tensor]) -> Tensor:
    """Constant, edge or reflected borders on any axes."""
    x = inputs[0]
    if op.mode is PadMode.CONSTANT:
        value = op.value if op.code is None else op.code
        borders = [
            size for pair in zip(op.begins, op.ends, strict=True) for size in reversed(pair)
        ][::-1]
        return functional.pad(x, borders, value=value)
    for axis, (begin, end) in enumerate(zip(op.begins, op.ends, strict=True)):
        if begin or end:
            size = x.shape[axis]
            positions = range(-begin, size + end)
            if op.mode is PadMode.EDGE:
                chosen = [min(max(place, 0), size - 1) for place in positions]
            else:
                chosen = [size - 1 - abs(size - 1 - abs(place)) for place in positions]
            x = torch.index_select(x, axis, torch.tensor(chosen, device=x.device))
    return x


def slice_(op: Slice, inputs: Sequence[Tensor]) -> Tensor:
    """Equal steps along each axis, backwards too; all images of a batch are taken."""
    x = inputs[0]
    for axis, (start, size, step) in enumerate(zip(op.starts, op.sizes, op.steps, strict=True)):
        if axis == 0 or (start, size, step) == (0, x.shape[axis], 1):
            continue
        chosen = [start + index * step for index in range(size)]
        x = torch.index_select(x, axis, torch.tensor(chosen, device=x.device))
    return x


def gather(op: Gather, inputs: Sequence[Tensor]) -> Tensor:
    """Elements of one axis by their indices."""
    x = inputs[0]
    return torch.index_select(x, op.axis, torch.tensor(op.indices, device=x.device))


def masked_fill(op: MaskedFill, inputs: Sequence[Tensor]) -> Tensor:
    """The operator's value among floats, its code among codes."""
    x, mask = inputs
    fill = op.value if x.is_floating_point() else op.code
    assert fill is not None
    return torch.where(mask != 0, x, torch.tensor(fill, dtype=x.dtype, device=x.device))


def transpose(op: Transpose, inputs: Sequence[Tensor]) -> Tensor:
    """Output axis i is input axis permutation[i]."""
    return inputs[0].permute(op.permutation)


def reshape(op: Reshape, inputs: Sequence[Tensor]) -> Tensor:
    """Axis 0 is the batch in networks that `is_batchable` accepts."""
    x = inputs[0]
    if op.shape and op.shape[0] == 1 and x.shape[0] != 1:
        return x.reshape(x.shape[0], *op.shape[1:])
    return x.reshape(op.shape)


def depth_to_space(op: DepthToSpace, inputs: Sequence[Tensor]) -> Tensor:
    """Both orders of channels."""
    x, block = inputs[0], op.block
    images, _, height, width = x.shape
    if op.column_major:
        split = x.reshape(images, -1, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        split = x.reshape(images, block, block, -1, height, width).permute(0, 3, 4, 1, 5, 2)
    return split.reshape(images, -1, height * block, width * block)


def arg_max(op: ArgMax, inputs: Sequence[Tensor]) -> Tensor:
    """Indices (int64) of the first of equal maxima, or of the last."""
    x = inputs[0].detach()
    # torch promises nothing about ties.
    places = torch.arange(x.shape[op.axis], device=x.device)
    shape = [1] * x.ndim
    shape[op.axis] = x.shape[op.axis]
    is_best = x == x.amax(dim=op.axis, keepdim=True)
    none = -1 if op.last else x.shape[op.axis]
    index = torch.where(is_best, places.reshape(shape), none)
    return (
        index.amax(dim=op.axis, keepdim=op.keepdims)
        if op.last
        else index.amin(dim=op.axis, keepdim=op.keepdims)
    )


MOVERS: Mapping[type[Op], Mover] = {
    MaxPool: max_pool,
    MaxPoolIndex: max_pool_index,
    MaxUnpool: max_unpool,
    NearestResize: nearest_resize,
    Concat: concat,
    Pad: pad,
    Slice: slice_,
    Gather: gather,
    MaskedFill: masked_fill,
    Transpose: transpose,
    Reshape: reshape,
    DepthToSpace: depth_to_space,
    ArgMax: arg_max,
}
