"""How far an output pixel sees, and by what shifts of the image the output merely shifts.

Every axis of every value that is one of the image's gets a `Footprint`. Borders are left out: an
image is taken as endless, since a tile at the border of an image is at its own border, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from qcompile.boundary import channel_axis
from qcompile.errors import UsageError
from qcompile.footprint import (
    Footprint,
    all_of,
    copied,
    linear_readers,
    nearest_readers,
    transposed,
    window,
)
from qcompile.graph import Graph, Op
from qcompile.ops import (
    POINTWISE,
    Add,
    Affine,
    ArgMax,
    AveragePool,
    BatchMatMul,
    Concat,
    Conv,
    ConvTranspose,
    DepthToSpace,
    Dequantize,
    Div,
    FakeQuantize,
    Gather,
    GroupNorm,
    LayerNorm,
    LinearResize,
    LocalAttention2d,
    Lookup,
    MaskedFill,
    MatMul,
    MaxPool,
    MaxPoolIndex,
    MaxUnpool,
    Mul,
    NearestResize,
    Pad,
    Quantize,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    Softmax,
    Threshold,
    Transpose,
)
from qcompile.types import Shape

MOST_POSITIONS = 1 << 14


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor: for each of its axes a footprint, or None where it is no axis of the image.

    `whole` is the operator, if any, through which a position sees the whole image (or through
    which it is lost what it sees).
    """

    axes: tuple[Footprint | None, ...]
    whole: Op | None = None


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """
    Attributes:
        stride: the network's total stride along each spatial axis.
        halo: how far an output pixel sees along each spatial axis.
        whole: an operator that sees the whole image, so that `halo` bounds nothing; or None.
    """

    stride: Shape
    halo: Shape
    whole: Op | None


def receptive_field(graph: Graph) -> ReceptiveField:
    """Of the outputs that are maps of the input's size, all taken together.

    Raises:
        UsageError: no output is a map whose positions can be followed to the input.
    """
    values = _followed(graph)
    count = len(graph.types[graph.inputs[0]].shape) - 2
    maps = []
    for name in graph.outputs:
        found = {item.axis: item for item in values[name].axes if item is not None}
        if len(found) == count and all(item.period == len(item.low) for item in found.values()):
            maps.append((values[name], found))
    if not maps:
        lost = next((values[n].whole for n in graph.outputs if values[n].whole is not None), None)
        through = "" if lost is None else f" through {lost.label()}"
        raise UsageError(
            f"--tile-halo: no output is a map whose pixels can be followed{through} back to the "
            f"input's; leave it out, or use images of the network's size"
        )
    return ReceptiveField(
        tuple(math.lcm(*(found[axis].period for _, found in maps)) for axis in range(count)),
        tuple(max(found[axis].halo for _, found in maps) for axis in range(count)),
        next((value.whole for value, _ in maps if value.whole is not None), None),
    )


def strides(graph: Graph) -> dict[str, tuple[Fraction | None, ...]]:
    """For each computed value the input pixels that a step along each of its axes stands for.

    None stands for axes that are none of the image's (batch, channels). Values whose positions are
    lost, or that pool over the whole image, have no entry.
    """
    found = {}
    for name, value in _followed(graph).items():
        known = [item.axis for item in value.axes if item is not None]
        if (
            name not in graph.inputs
            and len(set(known)) == len(graph.types[graph.inputs[0]].shape) - 2
        ):
            found[name] = tuple(
                None if item is None else Fraction(item.period, len(item.low))
                for item in value.axes
            )
    return found


def _followed(graph: Graph) -> dict[str, _Value]:
    """What every computed value sees."""
    values: dict[str, _Value] = {}
    for name in graph.inputs:
        shape = graph.types[name].shape
        channel = channel_axis(shape)
        spatial = [axis for axis in range(len(shape)) if axis not in (0, channel)]
        values[name] = _Value(
            tuple(
                Footprint(spatial.index(axis), 1, (0,), (0,)) if axis in spatial else None
                for axis in range(len(shape))
            )
        )
    for op in graph.ops:
        result = _seen(op, graph, values)
        for value in op.outputs:
            values[value] = result
    return values


def _seen(op: Op, graph: Graph, values: Mapping[str, _Value]) -> _Value:
    inputs = [values[name] for name in op.inputs if name in values]
    rank = len(graph.output_type(op).shape)
    if not inputs:
        return _Value((None,) * rank)
    if isinstance(op, (*_JOINING, *_SAME)):
        return _joined(op, graph, values, rank)
    value = inputs[0]
    if isinstance(op, LocalAttention2d | MaxUnpool):
        result = _windows(op, values)
    else:
        result = _moved(op, graph, value)
    if result is None or any(
        item is not None and len(item.low) > MOST_POSITIONS for item in result.axes
    ):
        return _Value((None,) * rank, value.whole or op)
    return result


_JOINING = (Add, Mul, Div, Concat)
_SAME: tuple[type[Op], ...] = (
    *POINTWISE,
    Affine,
    Dequantize,
    FakeQuantize,
    GroupNorm,
    LayerNorm,
    Lookup,
    MaskedFill,
    MatMul,
    Quantize,
    Rescale,
    Softmax,
    Threshold,
)
"""Whatever else they do, position p of the result belongs to position p of the first input."""
_MOVING: tuple[type[Op], ...] = (
    Conv,
    ConvTranspose,
    MaxPool,
    AveragePool,
    NearestResize,
    LinearResize,
    Pad,
    Slice,
    Transpose,
    DepthToSpace,
    ReduceMean,
    ArgMax,
    Reshape,
    Gather,
    BatchMatMul,
    LocalAttention2d,
    MaxPoolIndex,
    MaxUnpool,
)
FOLLOWED: tuple[type[Op], ...] = (*_JOINING, *_SAME, *_MOVING)
"""Every operator whose positions can be followed; through others they are lost."""


def _joined(op: Op, graph: Graph, values: Mapping[str, _Value], rank: int) -> _Value:
    """Operators on the same positions of all inputs, with broadcasting."""
    whole = next((values[n].whole for n in op.inputs if n in values and values[n].whole), None)
    axes: list[Footprint | None] = [None] * rank
    for name in op.inputs[: None if isinstance(op, _JOINING) else 1]:
        shape = graph.types[name].shape
        for axis in range(-len(shape), 0):
            if name not in values:
                continue
            item, so_far = values[name].axes[axis], axes[axis]
            if item is not None and so_far is not None:
                item = so_far.joined(item)
                whole = whole or (op if item is None else None)
            axes[axis] = item if item is not None else so_far
    for name in op.inputs:
        shape = graph.types[name].shape
        if isinstance(op, _JOINING) and name not in values:
            # A constant that differs from place to place does not move with the image.
            differing = (
                shape[axis] > 1 and axes[axis] is not None for axis in range(-len(shape), 0)
            )
            whole = whole or (op if any(differing) else None)
    if isinstance(op, GroupNorm):
        whole = whole or op
    if isinstance(op, MaskedFill | Softmax) and len(op.inputs) > 1:
        mask = graph.types[op.inputs[1]].shape
        if any(mask[axis] > 1 and axes[axis] is not None for axis in range(-len(mask), 0)):
            whole = whole or op  # it does not move with the image
    mixed = op.axis if isinstance(op, (Concat, LayerNorm, Softmax)) else rank - 1
    if isinstance(op, (Concat, LayerNorm, Softmax, MatMul)) and axes[mixed] is not None:
        whole = whole or op
        if not isinstance(op, LayerNorm | Softmax):
            axes[mixed] = None
    return _Value(tuple(axes), whole)


def _windows(op: LocalAttention2d | MaxUnpool, values: Mapping[str, _Value]) -> _Value | None:
    """Operators that see several inputs, each through windows of its own."""
    axes: list[Footprint | None] = []
    whole = None
    for position, name in enumerate(op.inputs):
        value = values.get(name)
        if value is None:
            continue
        if value.axes[1] is not None:
            return None
        whole = whole or value.whole
        seen: list[Footprint | None] = []
        for axis, item in enumerate(value.axes[2:]):
            begin = op.pads_begin[axis]
            if item is None:
                seen.append(None)
            elif isinstance(op, MaxUnpool):
                window_of = (op.kernel[axis], op.strides[axis], op.dilations[axis])
                seen.append(transposed(item, *window_of, begin))
            else:
                size, before = (1, 0) if position == 0 else (op.kernel[axis], begin)
                seen.append(window(item, size, 1, 1, before))
        if not axes:
            axes = seen
            continue
        for axis, item in enumerate(seen):
            so_far = axes[axis]
            if item is not None and so_far is not None:
                item = so_far.joined(item)
                whole = whole or (op if item is None else None)
            axes[axis] = item if item is not None else so_far
    return _Value((None, None, *axes), whole)


def _moved(op: Op, graph: Graph, value: _Value) -> _Value | None:
    """Operators that move positions; None where it cannot be said what they see."""
    shape = graph.types[op.inputs[0]].shape
    if isinstance(op, (Conv, MaxPool, MaxPoolIndex, AveragePool)):
        kernel = graph.types[op.inputs[1]].shape[2:] if isinstance(op, Conv) else op.kernel
        if value.axes[1] is not None:
            return None
        if (
            all(size == 1 for size in graph.output_type(op).shape[2:])
            and tuple(kernel) == shape[2:]
        ):
            return _Value((None,) * len(shape), value.whole or op)
        moved = [
            item and window(item, *sizes)
            for item, *sizes in zip(
                value.axes[2:], kernel, op.strides, op.dilations, op.pads_begin, strict=True
            )
        ]
        return replace(value, axes=(None, None, *moved))
    if isinstance(op, ConvTranspose):
        kernel = graph.types[op.inputs[1]].shape[2:]
        if value.axes[1] is not None:
            return None
        moved = [
            item and transposed(item, *sizes)
            for item, *sizes in zip(
                value.axes[2:], kernel, op.strides, op.dilations, op.pads_begin, strict=True
            )
        ]
        return replace(value, axes=(None, None, *moved))
    if isinstance(op, (NearestResize, LinearResize)):
        return _resized(op, value, shape)
    if isinstance(op, Pad):
        # What is reflected or repeated belongs to the border: the same in a tile at the border.
        return _shifted(value, [-begin for begin in op.begins])
    if isinstance(op, Slice):
        return _sliced(op, value)
    if isinstance(op, Transpose):
        return replace(value, axes=tuple(value.axes[axis] for axis in op.permutation))
    if isinstance(op, DepthToSpace):
        up = [item and copied(item, op.block) for item in value.axes[2:]]
        return replace(value, axes=(None, None, *up)) if value.axes[1] is None else None
    if isinstance(op, (ReduceMean, ArgMax)):
        return _reduced(op, value)
    if isinstance(op, Reshape):
        return _reshaped(value, shape, op.shape)
    return None


def _resized(op: NearestResize | LinearResize, value: _Value, shape: Shape) -> _Value | None:
    """Only coordinates that shift with the image, so not align_corners."""
    if value.axes[1] is not None:
        return None
    axes: list[Footprint | None] = [None, None]
    for axis, item in enumerate(value.axes[2:]):
        if item is None:
            axes.append(None)
            continue
        if isinstance(op, NearestResize):
            positions = len(op.sources[axis])
            readers = nearest_readers(op.sources[axis], shape[axis + 2])
        else:
            positions = len(op.taps[axis].first)
            readers = linear_readers(op.taps[axis], shape[axis + 2])
        if not readers:
            return None
        ratio = Fraction(shape[axis + 2], positions)
        longer = item.longer(ratio.numerator // math.gcd(len(item.low), ratio.numerator))
        axes.append(longer.reading(int(len(longer.low) / ratio), all_of(readers), longer.period))
    return replace(value, axes=tuple(axes))


def _shifted(value: _Value, starts: Sequence[int]) -> _Value:
    """Position p of the result is position p + start of the input."""
    axes = [
        item and window(item, 1, 1, 1, -start)
        for item, start in zip(value.axes, starts, strict=True)
    ]
    return replace(value, axes=tuple(axes))


def _sliced(op: Slice, value: _Value) -> _Value | None:
    if any(item is not None and step < 1 for item, step in zip(value.axes, op.steps, strict=True)):
        return None  # mirrored
    axes = [
        item and window(item, 1, step, 1, -start)
        for item, start, step in zip(value.axes, op.starts, op.steps, strict=True)
    ]
    return replace(value, axes=tuple(axes))


def _reduced(op: ReduceMean | ArgMax, value: _Value) -> _Value:
    axes = op.axes if isinstance(op, ReduceMean) else (op.axis,)
    seen = value.whole
    if any(value.axes[axis] is not None for axis in axes):
        seen = seen or op
    left = [
        None if axis in axes else item
        for axis, item in enumerate(value.axes)
        if op.keepdims or axis not in axes
    ]
    return _Value(tuple(left), seen)


def _reshaped(value: _Value, before: Shape, after: Shape) -> _Value | None:
    """Axes of size 1 may come and go; the others must stay."""
    kept = [(size, item) for size, item in zip(before, value.axes, strict=True) if size > 1]
    if [size for size, _ in kept] != [size for size in after if size > 1]:
        return None
    items = iter(item for _, item in kept)
    return replace(value, axes=tuple(next(items) if size > 1 else None for size in after))
