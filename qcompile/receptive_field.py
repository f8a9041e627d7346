"""How far an output pixel sees, and by what shifts of the image the output merely shifts.

Along one axis, the positions of a value repeat: `Footprint` holds, for the positions of one period,
the lowest and the highest input pixel that each depends on. Borders are left out: an image is
taken as endless, since a tile at the border of an image is at its own border, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from qcompile.boundary import channel_axis
from qcompile.errors import UsageError
from qcompile.graph import Graph, Op
from qcompile.ops import (
    POINTWISE,
    Add,
    Affine,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    DepthToSpace,
    Dequantize,
    Div,
    GroupNorm,
    LinearResize,
    LinearTaps,
    Lookup,
    MatMul,
    MaxPool,
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
class Footprint:
    """What the positions of a value see along one axis.

    Attributes:
        axis: which spatial axis of the input.
        period: input pixels after which everything repeats.
        low: lowest input pixel for each position of a period; position p + len(low) sees the same
            `period` pixels further.
        high: likewise the highest.
    """

    axis: int
    period: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    def longer(self, times: int) -> Footprint:
        """The same with a period that is `times` as long."""
        shifts = [step * self.period for step in range(times)]
        return Footprint(
            self.axis,
            self.period * times,
            tuple(low + shift for shift in shifts for low in self.low),
            tuple(high + shift for shift in shifts for high in self.high),
        )

    def reading(
        self, positions: int, taps: Callable[[int], Sequence[int]], period: int
    ) -> Footprint:
        """What an operator sees whose position p reads positions `taps(p)` of this value.

        Args:
            positions: of the result in a period.
            taps: not empty for at least one position.
            period: of the result in input pixels.
        """
        low, high = [], []
        for p in range(positions):
            seen = [self._at(tap) for tap in taps(p)]
            # Positions between the taps of a transposed convolution see nothing.
            low.append(min((first for first, _ in seen), default=math.inf))
            high.append(max((last for _, last in seen), default=-math.inf))
        centre = [Fraction(p * period, positions) for p in range(positions)]
        return Footprint(
            self.axis,
            period,
            tuple(
                int(x) if math.isfinite(x) else math.ceil(c)
                for x, c in zip(low, centre, strict=True)
            ),
            tuple(
                int(x) if math.isfinite(x) else math.floor(c)
                for x, c in zip(high, centre, strict=True)
            ),
        )

    def _at(self, position: int) -> tuple[int, int]:
        turn, place = divmod(position, len(self.low))
        shift = turn * self.period
        return self.low[place] + shift, self.high[place] + shift

    def joined(self, other: Footprint) -> Footprint | None:
        """What sees all that both see; None if they have different steps or axes."""
        if self.axis != other.axis or self.period * len(other.low) != other.period * len(self.low):
            return None
        common = math.lcm(self.period, other.period)
        one, two = self.longer(common // self.period), other.longer(common // other.period)
        return Footprint(
            self.axis,
            common,
            tuple(map(min, one.low, two.low)),
            tuple(map(max, one.high, two.high)),
        )

    @property
    def halo(self) -> int:
        """How far the positions of a value of the input's own size see, at most."""
        return max(
            max(p - low, high - p)
            for p, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        )


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


def _seen(op: Op, graph: Graph, values: Mapping[str, _Value]) -> _Value:
    inputs = [values[name] for name in op.inputs if name in values]
    rank = len(graph.output_type(op).shape)
    if not inputs:
        return _Value((None,) * rank)
    if isinstance(op, (Add, Mul, Div, *POINTWISE, Concat, *_SAME)):
        return _joined(op, graph, values, rank)
    value = inputs[0]
    result = _moved(op, graph, value)
    if result is None or any(
        item is not None and len(item.low) > MOST_POSITIONS for item in result.axes
    ):
        return _Value((None,) * rank, value.whole or op)
    return result


_SAME = (Affine, Dequantize, GroupNorm, Lookup, MatMul, Quantize, Rescale, Softmax, Threshold)
"""Whatever else they do, position p of the result belongs to position p of the input."""


def _joined(op: Op, graph: Graph, values: Mapping[str, _Value], rank: int) -> _Value:
    """Operators on the same positions of all inputs, with broadcasting."""
    whole = next((values[n].whole for n in op.inputs if n in values and values[n].whole), None)
    axes: list[Footprint | None] = [None] * rank
    for name in op.inputs[: None if isinstance(op, (Add, Mul, Div, Concat)) else 1]:
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
        if isinstance(op, (Add, Mul, Div)) and name not in values:
            # A constant that differs from place to place does not move with the image.
            differing = (
                shape[axis] > 1 and axes[axis] is not None for axis in range(-len(shape), 0)
            )
            whole = whole or (op if any(differing) else None)
    if isinstance(op, GroupNorm):
        whole = whole or op
    mixed = op.axis if isinstance(op, (Concat, Softmax)) else rank - 1
    if isinstance(op, (Concat, Softmax, MatMul)) and axes[mixed] is not None:
        whole = whole or op
        if not isinstance(op, Softmax):
            axes[mixed] = None
    return _Value(tuple(axes), whole)


def _moved(op: Op, graph: Graph, value: _Value) -> _Value | None:
    """Operators that move positions; None where it cannot be said what they see."""
    shape = graph.types[op.inputs[0]].shape
    if isinstance(op, (Conv, MaxPool, AveragePool)):
        kernel = graph.types[op.inputs[1]].shape[2:] if isinstance(op, Conv) else op.kernel
        if value.axes[1] is not None:
            return None
        if (
            all(size == 1 for size in graph.output_type(op).shape[2:])
            and tuple(kernel) == shape[2:]
        ):
            return _Value((None,) * len(shape), value.whole or op)
        moved = [
            item and _window(item, *sizes)
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
            item and _transposed(item, *sizes)
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
        up = [item and _copied(item, op.block) for item in value.axes[2:]]
        return replace(value, axes=(None, None, *up)) if value.axes[1] is None else None
    if isinstance(op, (ReduceMean, ArgMax)):
        return _reduced(op, value)
    if isinstance(op, Reshape):
        return _reshaped(value, shape, op.shape)
    return None


def _window(item: Footprint, kernel: int, stride: int, dilation: int, begin: int) -> Footprint:
    longer = item.longer(stride // math.gcd(len(item.low), stride))
    taps = [k * dilation - begin for k in range(kernel)]
    return longer.reading(
        len(longer.low) // stride, lambda p: [p * stride + tap for tap in taps], longer.period
    )


def _transposed(item: Footprint, kernel: int, stride: int, dilation: int, begin: int) -> Footprint:
    def taps(p: int) -> list[int]:
        reached = [p + begin - k * dilation for k in range(kernel)]
        return [at // stride for at in reached if at % stride == 0]

    return item.reading(len(item.low) * stride, taps, item.period)


def _copied(item: Footprint, times: int) -> Footprint:
    return item.reading(len(item.low) * times, lambda p: [p // times], item.period)


_Place = Callable[[int, Fraction], Fraction]
_COORDINATES: tuple[_Place, ...] = (
    lambda p, ratio: (p + Fraction(1, 2)) * ratio - Fraction(1, 2),  # half_pixel
    lambda p, ratio: p * ratio,  # asymmetric
)
_ROUNDINGS: tuple[Callable[[Fraction], int], ...] = (
    math.floor,
    math.ceil,
    lambda x: math.ceil(x - Fraction(1, 2)),
    lambda x: math.floor(x + Fraction(1, 2)),
)


Reader = Callable[[int], list[int]]
"""Output position -> the input positions it is made of, taking the axis as endless."""


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
            readers = _nearest_readers(op.sources[axis], shape[axis + 2])
        else:
            positions = len(op.taps[axis].first)
            readers = _linear_readers(op.taps[axis], shape[axis + 2])
        if not readers:
            return None
        ratio = Fraction(shape[axis + 2], positions)
        longer = item.longer(ratio.numerator // math.gcd(len(item.low), ratio.numerator))
        axes.append(longer.reading(int(len(longer.low) / ratio), _all_of(readers), longer.period))
    return replace(value, axes=tuple(axes))


def _all_of(readers: Sequence[Reader]) -> Reader:
    """What any of the rules reads: they give the same positions inside, and may differ beyond."""
    return lambda p: [at for reader in readers for at in reader(p)]


def _nearest_readers(sources: Sequence[int], size: int) -> list[Reader]:
    """Every rule that gives these sources."""
    ratio = Fraction(size, len(sources))

    def reader(place: _Place, rounded: Callable[[Fraction], int]) -> Reader:
        return lambda p: [rounded(place(p, ratio))]

    found = [reader(place, rounded) for place in _COORDINATES for rounded in _ROUNDINGS]
    return [
        read
        for read in found
        if all(at == min(max(read(p)[0], 0), size - 1) for p, at in enumerate(sources))
    ]


def _linear_readers(taps: LinearTaps, size: int) -> list[Reader]:
    """Every rule that gives these taps."""
    ratio = Fraction(size, len(taps.first))
    found = [
        first + weight * (second - first)
        for first, second, weight in zip(taps.first, taps.second, taps.weights, strict=True)
    ]

    def reader(place: _Place) -> Reader:
        return lambda p: [math.floor(place(p, ratio)), math.ceil(place(p, ratio))]

    return [
        reader(place)
        for place in _COORDINATES
        if all(at == min(max(place(p, ratio), 0), size - 1) for p, at in enumerate(found))
    ]


def _shifted(value: _Value, starts: Sequence[int]) -> _Value:
    """Position p of the result is position p + start of the input."""
    axes = [
        item and _window(item, 1, 1, 1, -start)
        for item, start in zip(value.axes, starts, strict=True)
    ]
    return replace(value, axes=tuple(axes))


def _sliced(op: Slice, value: _Value) -> _Value | None:
    if any(item is not None and step < 1 for item, step in zip(value.axes, op.steps, strict=True)):
        return None  # mirrored
    axes = [
        item and _window(item, 1, step, 1, -start)
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
