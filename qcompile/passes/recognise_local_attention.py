"""Self-attention over windows, exported as movements, products, sums and a softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    MOVEMENT,
    Add,
    Affine,
    BatchMatMul,
    Concat,
    Gather,
    LocalAttention2d,
    Mul,
    Pad,
    PadMode,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)
from qcompile.passes.parameters import add_float
from qcompile.types import Array, Shape

OUTSIDE = -1
"""The index of what padding brings in."""
MOST_POSITIONS = 1 << 10
"""Of a window: whatever attends to more is not local."""
CHUNK = 1 << 18
"""About how many products are followed at once."""


@dataclass(frozen=True, slots=True)
class RecogniseLocalAttention:
    """softmax(sum(q * (unfolded k + r))) and its sum with unfolded v -> LocalAttention2d

    Before::

        %u = Concat(Slice(%k), Slice(%k), ...)      a fan of slices, or any other unfolding
        %s = ReduceMean(Mul(%q', Add(%u', @r)))
        %a = Softmax 'a'(%s)
        %y = Reshape(ReduceMean(Mul(%a, %w)))       %w: %v, unfolded

    After::

        %y = LocalAttention2d 'a'(%q, %k, %v, @r)

    Spellings do not matter: every element of the output is followed back to the elements of q, k, v
    and r that it is made of, and all of them must be those of the definition. What only looks alike
    (unfolding without transposing) stays as it is.
    """

    name: ClassVar[str] = "recognise-local-attention"

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        found = False
        for op in graph.ops:
            match = _match(graph, op) if isinstance(op, Softmax) else None
            if match is not None:
                found = True
                _replace(graph, rewriter, match)
        return rewriter.finish() if found else graph


@dataclass(frozen=True, slots=True)
class _Source:
    """Channels of a map [1, C, H, W]: those from `first` on."""

    value: str
    first: int
    channels: int


@dataclass(frozen=True, slots=True)
class _Match:
    softmax: Softmax
    output: str
    q: _Source
    k: _Source
    v: _Source
    relative: Array
    heads: int
    pads_begin: tuple[int, int]
    pads_end: tuple[int, int]
    score_scale: float


@dataclass(frozen=True, slots=True)
class _Elements:
    """Elements of one value by their flat index, with a constant that was added to each."""

    value: str
    index: Array
    added: Array


class _Mismatch(Exception):
    """This is something else."""


def _match(graph: Graph, softmax: Softmax) -> _Match | None:
    """What the softmax belongs to; None if it is no local attention."""
    if graph.types[softmax.output].shape[softmax.axis] > MOST_POSITIONS:
        return None
    total = _next(graph, softmax.output, BatchMatMul)
    product = _next(graph, softmax.output, Mul)
    if product is not None:
        total = _next(graph, product.output, ReduceMean)
    if total is None:
        return None
    value: str | None = total.output
    while value is not None:
        shape = graph.types[value].shape
        if len(shape) == 4 and shape[0] == 1:
            try:
                return _Follower(graph, softmax, value).match()
            except _Mismatch:
                pass
        reader = graph.only_consumer(value)
        moves = isinstance(reader, (Reshape, Transpose)) or _gain(graph, reader) is not None
        value = reader.output if reader is not None and moves else None
    return None


def _next(graph: Graph, value: str, kind: type[Op]) -> Op | None:
    """The next operator of a kind, if only movements lie between."""
    reader = graph.only_consumer(value)
    while reader is not None and isinstance(reader, MOVEMENT):
        reader = graph.only_consumer(reader.output)
    return reader if isinstance(reader, kind) else None


def _gain(graph: Graph, op: Op | None) -> float | None:
    """The factor of an operator that only multiplies by a number."""
    if isinstance(op, Affine) and op.activation == IDENTITY:
        scale, *shift = (graph.constants[name] for name in op.inputs[1:])
        plain = (scale == scale[0]).all() and not any(item.any() for item in shift)
        return float(scale[0]) if plain else None
    if not isinstance(op, Rescale):
        return None
    gain = op.activation.gain
    plain = replace(op.activation, gain=IDENTITY.gain) == IDENTITY
    return gain[0] if plain and len(gain) == 1 else None


class _Follower:
    """Follows the elements of one candidate output."""

    def __init__(self, graph: Graph, softmax: Softmax, output: str) -> None:
        self.graph = graph
        self.softmax = softmax
        self.output = output
        self.shape = graph.types[output].shape

    def match(self) -> _Match:
        self._probe()
        _, channels, height, width = self.shape
        middle = np.array([height // 2])
        group, v = self._weighted(np.arange(channels), middle, np.arange(width))
        at = width // 2
        heads = self._heads(group[:, 0, at])
        firsts = np.arange(heads) * (channels // heads)
        q, k, scale = self._scores(group[firsts])
        sources = [self._source(item, heads) for item in (q, k, v)]
        depth = k.index.shape[-1]
        if any(source.channels != heads * depth for source in sources[:2]):
            raise _Mismatch
        if sources[2].channels != channels:
            raise _Mismatch
        # Where each slot of the softmax lies, seen from the pixel in the middle.
        place = np.array(_coordinates(self._inside(v.index[0, 0, at]), self._of(v.value)))
        rows, columns = place[2] - middle[0], place[3] - at
        origin, kernel = _rectangle(rows, columns)
        sizes = self._of(k.value)[2:]
        if sizes != self._of(v.value)[2:] or self._of(q.value)[2:] != (height, width):
            raise _Mismatch
        begin = (-origin[0], -origin[1])
        end = tuple(
            out - size - before + window - 1
            for out, size, before, window in zip((height, width), sizes, begin, kernel, strict=True)
        )
        if min(*begin, *end) < 0 or not math.isfinite(scale) or scale <= 0:
            raise _Mismatch
        order = np.argsort((rows - origin[0]) * kernel[1] + columns - origin[1])
        relative = k.added[:, 0, at].transpose(0, 2, 1)[:, :, order]  # heads, depth, position
        found = _Match(
            self.softmax,
            self.output,
            sources[0],
            sources[1],
            sources[2],
            relative.reshape(-1, *kernel),
            heads,
            begin,
            (end[0], end[1]),
            scale,
        )
        self._verify(found, order)
        return found

    def _probe(self) -> None:
        """Follows a few elements in the middle, before anything is followed that takes long.

        Raises:
            _Mismatch: neighbours attend to the same elements of v, as all tokens of a transformer
                do.
        """
        _, v = self._weighted(
            *(np.arange(max(0, size // 2 - 1), size // 2 + 1) for size in self.shape[1:])
        )
        windows = v.index.reshape(-1, v.index.shape[-1])
        windows = windows[(windows != OUTSIDE).any(axis=-1)]
        if len(np.unique(windows, axis=0)) < len(windows):
            raise _Mismatch

    def _verify(self, found: _Match, order: Array) -> None:
        """Compares every element with the definition.

        Raises:
            _Mismatch: one differs.
        """
        _, channels, height, width = self.shape
        depth = found.q.channels // found.heads
        wide = channels // found.heads
        count = found.relative[0].size
        relative = found.relative.reshape(found.heads, depth, count)
        step = max(1, CHUNK // (max(found.q.channels, channels) * width * count))
        for start in range(0, height, step):
            rows = np.arange(start, min(start + step, height))
            group, v = self._weighted(np.arange(channels), rows, np.arange(width))
            heads = group.reshape(found.heads, wide, *group.shape[1:])
            if (heads != heads[:, :1]).any():
                raise _Mismatch
            q, k, _ = self._scores(heads[:, 0])
            own = np.arange(found.q.channels).reshape(found.heads, 1, 1, 1, depth)
            values = np.arange(channels).reshape(-1, 1, 1, 1)
            here = np.array(0)
            checks = (
                (q.index, self._window(found, found.q, own, rows, here, here)),
                (
                    k.index[:, :, :, order],
                    self._window(found, found.k, own, rows, *_taps(found, 1)),
                ),
                (
                    v.index[:, :, :, order],
                    self._window(found, found.v, values, rows, *_taps(found, 0)),
                ),
                (k.added[:, :, :, order], relative.transpose(0, 2, 1)[:, None, None]),
            )
            for actual, expected in checks:
                if (actual != expected).any():
                    raise _Mismatch
            if q.added.any() or v.added.any():
                raise _Mismatch

    def _window(
        self, found: _Match, source: _Source, channel: Array, rows: Array, down: Array, right: Array
    ) -> Array:
        """Flat indices of a source's elements (`OUTSIDE` where there are none): of `channel`, for
        each row, column and offset."""
        shape = self._of(source.value)
        spread = [1] * (channel.ndim - 3)
        y = rows.reshape(-1, 1, *spread) + down
        x = np.arange(self.shape[3]).reshape(-1, *spread) + right
        inside = (y >= 0) & (y < shape[2]) & (x >= 0) & (x < shape[3])
        index = ((source.first + channel) * shape[2] + y) * shape[3] + x
        return np.where(inside, index, OUTSIDE)

    def _of(self, value: str) -> Shape:
        return self.graph.types[value].shape

    def _inside(self, index: Array) -> Array:
        if (index == OUTSIDE).any():
            raise _Mismatch
        return index

    def _heads(self, groups: Array) -> int:
        """The number of heads: neighbouring channels with the same softmax."""
        heads = len(np.unique(groups))
        if (
            groups.size % heads
            or (groups.reshape(heads, -1) != groups[:: groups.size // heads, None]).any()
        ):
            raise _Mismatch
        return heads

    def _source(self, elements: _Elements, heads: int) -> _Source:
        """The channels that elements [channels or heads, ..., depth] of one value come from."""
        shape = self._of(elements.value)
        if len(shape) != 4 or shape[0] != 1:
            raise _Mismatch
        inside = elements.index[elements.index != OUTSIDE]
        if not inside.size:
            raise _Mismatch
        channels = inside // (shape[2] * shape[3])
        first = int(channels.min())
        return _Source(elements.value, first, int(channels.max()) - first + 1)

    # What elements are made of ----------------------------------------------------------------

    def _weighted(self, channels: Array, rows: Array, columns: Array) -> tuple[Array, _Elements]:
        """Of outputs [channels, rows, columns]: the softmax's groups, and for each slot of these
        the elements of v [channels, rows, columns, slots]."""
        _, _, height, width = self.shape
        grid = (channels[:, None, None] * height + rows[:, None]) * width + columns
        total, factor = self._contraction(self.output, grid)
        if factor != 1.0:
            raise _Mismatch
        first, second = total
        if first.value != self.softmax.output:
            first, second = second, first
        if first.value != self.softmax.output or first.added.any():
            raise _Mismatch
        shape = self._of(self.softmax.output)
        axis = self.softmax.axis
        coordinates = _coordinates(self._inside(first.index), shape)
        slots = coordinates[axis]
        coordinates[axis] = np.zeros_like(slots)
        groups = _flat(coordinates, shape)
        if slots.shape[-1] != shape[axis] or (groups != groups[..., :1]).any():
            raise _Mismatch
        order = np.argsort(slots, axis=-1)
        if (np.take_along_axis(slots, order, -1) != np.arange(shape[axis])).any():
            raise _Mismatch
        values = _Elements(
            second.value,
            np.take_along_axis(second.index, order, -1),
            np.take_along_axis(second.added, order, -1),
        )
        return groups[..., 0], values

    def _scores(self, groups: Array) -> tuple[_Elements, _Elements, float]:
        """Of softmax groups [heads, rows, columns]: q and k, [heads, rows, columns, slots, depth],
        by ascending elements of q."""
        shape = self._of(self.softmax.output)
        axis = self.softmax.axis
        stride = math.prod(shape[axis + 1 :])
        index = groups[..., None] + np.arange(shape[axis]) * stride
        (q, k), factor = self._contraction(self.softmax.inputs[0], index)
        if q.added.any() or _spread(q) > _spread(k):
            q, k = k, q
        order = np.argsort(q.index, axis=-1)
        q, k = (
            _Elements(
                item.value,
                np.take_along_axis(item.index, order, -1),
                np.take_along_axis(item.added, order, -1),
            )
            for item in (q, k)
        )
        return q, k, factor

    def _contraction(self, value: str, index: Array) -> tuple[tuple[_Elements, _Elements], float]:
        """The products [..., n] whose sum each element is, and the factor of the sum.

        Raises:
            _Mismatch: it is no such sum.
        """
        factor, reduced = 1.0, False
        index = index[..., None]
        while True:
            elements = self._follow(value, index)
            if elements.added.any():
                raise _Mismatch
            value, index = elements.value, self._inside(elements.index)
            op = self.graph.producers.get(value)
            gain = _gain(self.graph, op)
            if op is not None and gain is not None:
                factor *= gain
                value = op.inputs[0]
            elif isinstance(op, ReduceMean) and not reduced and op.activation == IDENTITY:
                reduced = True
                shape = self._of(op.inputs[0])
                factor /= op.count(shape)
                index = _reduced(op, index, shape, self._of(value))
                value = op.inputs[0]
            elif isinstance(op, Mul) and op.activation == IDENTITY:
                left, right = (
                    self._follow(name, _broadcast(index, self._of(value), self._of(name)))
                    for name in op.inputs
                )
                return (left, right), factor
            elif isinstance(op, BatchMatMul) and op.activation == IDENTITY and not reduced:
                return self._matrix_product(op, index), factor
            else:
                raise _Mismatch

    def _matrix_product(self, op: BatchMatMul, index: Array) -> tuple[_Elements, _Elements]:
        """The factors [..., n] of products [..., 1]."""
        left, right = (self._of(name) for name in op.inputs)
        *batch, row, column = _coordinates(index, self._of(op.output))
        along = np.arange(left[-1]) + np.zeros_like(row)
        factors = []
        for name, shape, ends in (
            (op.inputs[0], left, (row, along)),
            (op.inputs[1], right, (along, column)),
        ):
            own = batch[len(batch) - len(shape) + 2 :]
            places = _spread_over(own, shape[:-2])
            coordinates = np.broadcast_arrays(*places, *ends)
            flat = _flat(coordinates, shape)
            factors.append(self._follow(name, flat))
        return factors[0], factors[1]

    def _follow(self, value: str, index: Array) -> _Elements:
        """The elements of the operator that computed `value[index]`, through movements and added
        constants.

        Raises:
            _Mismatch: they come from several operators.
        """
        found = list(self._origins(value, index.reshape(-1), np.arange(index.size)))
        names = {name for name, _, _, _ in found if name}
        if len(names) != 1:
            raise _Mismatch
        source = np.full(index.size, OUTSIDE, np.int64)
        added = np.zeros(index.size, np.float64)
        for name, places, elements, constant in found:
            added[places] = constant
            if name:
                source[places] = elements
        return _Elements(names.pop(), source.reshape(index.shape), added.reshape(index.shape))

    def _origins(
        self, value: str, index: Array, places: Array
    ) -> Iterator[tuple[str, Array, Array, Array]]:
        """(value, places, their elements of it, what was added); no value for padding."""
        op = self.graph.producers.get(value)
        shape = self._of(value)
        constant = _constant_term(self.graph, op)
        if op is not None and constant is not None:
            data = np.broadcast_to(constant, shape).reshape(-1)[index].astype(np.float64)
            sums = np.zeros(int(places.max(initial=0)) + 1)
            sums[places] = data
            inner = op.inputs[0] if not self.graph.is_constant(op.inputs[0]) else op.inputs[1]
            for name, at, elements, added in self._origins(inner, index, places):
                yield name, at, elements, added + sums[at]
            return
        match op:
            case Reshape():
                yield from self._origins(op.inputs[0], index, places)
            case Transpose():
                moved = _coordinates(index, shape)
                inner_shape = self._of(op.inputs[0])
                coordinates = [moved[0]] * len(shape)
                for axis, source in enumerate(op.permutation):
                    coordinates[source] = moved[axis]
                flat = _flat(coordinates, inner_shape)
                yield from self._origins(op.inputs[0], flat, places)
            case Slice():
                moved = _coordinates(index, shape)
                coordinates = [
                    start + step * at
                    for start, step, at in zip(op.starts, op.steps, moved, strict=True)
                ]
                flat = _flat(coordinates, self._of(op.inputs[0]))
                yield from self._origins(op.inputs[0], flat, places)
            case Gather():
                coordinates = _coordinates(index, shape)
                coordinates[op.axis] = np.asarray(op.indices)[coordinates[op.axis]]
                flat = _flat(coordinates, self._of(op.inputs[0]))
                yield from self._origins(op.inputs[0], flat, places)
            case Pad() if op.mode is PadMode.CONSTANT and op.value == 0:
                inner_shape = self._of(op.inputs[0])
                moved = _coordinates(index, shape)
                coordinates = [at - begin for at, begin in zip(moved, op.begins, strict=True)]
                ok = np.ones(index.shape, bool)
                for at, size in zip(coordinates, inner_shape, strict=True):
                    ok &= (at >= 0) & (at < size)
                outside = places[~ok]
                yield "", outside, outside, np.zeros(outside.size)
                if ok.any():
                    flat = _flat([at[ok] for at in coordinates], inner_shape)
                    yield from self._origins(op.inputs[0], flat, places[ok])
            case Concat():
                at_all = _coordinates(index, shape)
                along, start = at_all[op.axis], 0
                for name in op.inputs:
                    size = self._of(name)[op.axis]
                    own = (along >= start) & (along < start + size)
                    if own.any():
                        coordinates = [at[own] for at in at_all]
                        coordinates[op.axis] = coordinates[op.axis] - start
                        flat = _flat(coordinates, self._of(name))
                        yield from self._origins(name, flat, places[own])
                    start += size
            case _:
                yield value, places, index, np.zeros(index.size)


def _coordinates(index: Array, shape: Shape) -> list[Array]:
    """Coordinates of flat indices. Of one axis, as numpy 2.4 is wrong where a last axis is 1."""
    found = np.unravel_index(index.reshape(-1), shape)
    return [at.reshape(index.shape) for at in found]


def _flat(coordinates: Sequence[Array], shape: Shape) -> Array:
    """Flat indices of coordinates, which may broadcast."""
    result = np.zeros((), np.int64)
    for at, size in zip(coordinates, shape, strict=True):
        result = result * size + at
    return result


def _constant_term(graph: Graph, op: Op | None) -> Array | None:
    """What an operator adds that only adds a constant."""
    if isinstance(op, Add) and op.weights == (1, 1) and op.activation == IDENTITY:
        constants = [graph.constants[name] for name in op.inputs if graph.is_constant(name)]
        return constants[0] if len(constants) == 1 else None
    if isinstance(op, Affine) and op.activation == IDENTITY and len(op.inputs) > 2:
        scale, shift = (graph.constants[name] for name in op.inputs[1:3])
        rank = graph.types[op.output].rank
        return shift.reshape(-1, *[1] * (rank - 2)) if (scale == 1).all() else None
    return None


def _spread(elements: _Elements) -> int:
    """Different elements along the slots: one for queries, many for keys."""
    first = elements.index[..., :1, :]
    return int((elements.index != first).sum())


def _reduced(op: ReduceMean, index: Array, shape: Shape, out: Shape) -> Array:
    """The elements [..., n] of what is summed, for sums [..., 1]."""
    moved = _coordinates(index, out)
    kept = iter(moved)
    counts = [size if axis in op.axes else 1 for axis, size in enumerate(shape)]
    taps = _coordinates(np.arange(math.prod(counts)), tuple(counts))
    coordinates = []
    for axis in range(len(shape)):
        base = next(kept) if op.keepdims or axis not in op.axes else np.zeros_like(index)
        coordinates.append(base + taps[axis])
    return _flat(coordinates, shape)


def _broadcast(index: Array, shape: Shape, operand: Shape) -> Array:
    """Elements of an operand that broadcasts to `shape`."""
    moved = _coordinates(index, shape)[len(shape) - len(operand) :]
    return _flat(_spread_over(moved, operand), operand)


def _spread_over(coordinates: Sequence[Array], shape: Shape) -> list[Array]:
    """Coordinates in a tensor that broadcasts: 0 along axes of size 1."""
    pairs = zip(coordinates, shape, strict=True)
    return [at if size > 1 else np.zeros_like(at) for at, size in pairs]


def _rectangle(rows: Array, columns: Array) -> tuple[tuple[int, int], tuple[int, int]]:
    """Origin and size of the rectangle that offsets fill."""
    origin = (int(rows.min()), int(columns.min()))
    size = (int(rows.max()) - origin[0] + 1, int(columns.max()) - origin[1] + 1)
    seen = {*zip(rows.tolist(), columns.tolist(), strict=True)}
    if len(seen) != rows.size or rows.size != math.prod(size):
        raise _Mismatch
    return origin, size


def _taps(found: _Match, more: int) -> tuple[Array, Array]:
    """Offsets of the positions of a window, with axes of size 1 behind."""
    kernel = found.relative.shape[1:]
    down, right = _coordinates(np.arange(math.prod(kernel)), kernel)
    spread = (-1, *[1] * more)
    return (
        (down - found.pads_begin[0]).reshape(spread),
        (right - found.pads_begin[1]).reshape(spread),
    )


def _replace(graph: Graph, rewriter: Rewriter, found: _Match) -> None:
    added: list[Op] = []
    inputs = []
    for source in (found.q, found.k, found.v):
        shape = graph.types[source.value].shape
        if source.channels == shape[1]:
            inputs.append(source.value)
            continue
        name = rewriter.add_value(f"{source.value}.channels")
        added.append(
            Slice(
                name=rewriter.fresh(f"{found.softmax.name}/channels"),
                inputs=(source.value,),
                outputs=(name,),
                starts=(0, source.first, 0, 0),
                sizes=(1, source.channels, *shape[2:]),
                steps=(1, 1, 1, 1),
            )
        )
        inputs.append(name)
    relative = add_float(rewriter, f"{found.softmax.name}.relative", found.relative)
    attention = LocalAttention2d(
        name=found.softmax.name,
        inputs=(*inputs, relative),
        outputs=(found.output,),
        kernel=(found.relative.shape[1], found.relative.shape[2]),
        pads_begin=found.pads_begin,
        pads_end=found.pads_end,
        heads=found.heads,
        score_scale=found.score_scale,
    )
    rewriter.replace(graph.producers[found.output], *added, attention)
