"""Self-attention over windows, exported as movements, products, sums and a softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    MOVEMENT,
    BatchMatMul,
    LocalAttention2d,
    Mul,
    ReduceMean,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)
from qcompile.passes.element_origins import (
    OUTSIDE,
    ElementOrigins,
    Elements,
    Mismatch,
    coordinates_of,
    flat_index,
    gain_of,
    inside,
)
from qcompile.passes.parameters import add_float
from qcompile.types import Array

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
            except Mismatch:
                pass
        reader = graph.only_consumer(value)
        moves = isinstance(reader, (Reshape, Transpose)) or gain_of(graph, reader) is not None
        value = reader.output if reader is not None and moves else None
    return None


def _next(graph: Graph, value: str, kind: type[Op]) -> Op | None:
    """The next operator of a kind, if only movements lie between."""
    reader = graph.only_consumer(value)
    while reader is not None and isinstance(reader, MOVEMENT):
        reader = graph.only_consumer(reader.output)
    return reader if isinstance(reader, kind) else None


class _Follower:
    """Follows the elements of one candidate output."""

    def __init__(self, graph: Graph, softmax: Softmax, output: str) -> None:
        self.origins = ElementOrigins(graph)
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
            raise Mismatch
        if sources[2].channels != channels:
            raise Mismatch
        # Where each slot of the softmax lies, seen from the pixel in the middle.
        place = np.array(coordinates_of(inside(v.index[0, 0, at]), self.origins.shape_of(v.value)))
        rows, columns = place[2] - middle[0], place[3] - at
        origin, kernel = _rectangle(rows, columns)
        sizes = self.origins.shape_of(k.value)[2:]
        if sizes != self.origins.shape_of(v.value)[2:] or self.origins.shape_of(q.value)[2:] != (
            height,
            width,
        ):
            raise Mismatch
        begin = (-origin[0], -origin[1])
        end = tuple(
            out - size - before + window - 1
            for out, size, before, window in zip((height, width), sizes, begin, kernel, strict=True)
        )
        if min(*begin, *end) < 0 or not math.isfinite(scale) or scale <= 0:
            raise Mismatch
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
            Mismatch: neighbours attend to the same elements of v, as all tokens of a transformer
                do.
        """
        _, v = self._weighted(
            *(np.arange(max(0, size // 2 - 1), size // 2 + 1) for size in self.shape[1:])
        )
        windows = v.index.reshape(-1, v.index.shape[-1])
        windows = windows[(windows != OUTSIDE).any(axis=-1)]
        if len(np.unique(windows, axis=0)) < len(windows):
            raise Mismatch

    def _verify(self, found: _Match, order: Array) -> None:
        """Compares every element with the definition.

        Raises:
            Mismatch: one differs.
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
                raise Mismatch
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
                    raise Mismatch
            if q.added.any() or v.added.any():
                raise Mismatch

    def _window(
        self, found: _Match, source: _Source, channel: Array, rows: Array, down: Array, right: Array
    ) -> Array:
        """Flat indices of a source's elements (`OUTSIDE` where there are none): of `channel`, for
        each row, column and offset."""
        shape = self.origins.shape_of(source.value)
        spread = [1] * (channel.ndim - 3)
        y = rows.reshape(-1, 1, *spread) + down
        x = np.arange(self.shape[3]).reshape(-1, *spread) + right
        exists = (y >= 0) & (y < shape[2]) & (x >= 0) & (x < shape[3])
        index = ((source.first + channel) * shape[2] + y) * shape[3] + x
        return np.where(exists, index, OUTSIDE)

    def _heads(self, groups: Array) -> int:
        """The number of heads: neighbouring channels with the same softmax."""
        heads = len(np.unique(groups))
        if (
            groups.size % heads
            or (groups.reshape(heads, -1) != groups[:: groups.size // heads, None]).any()
        ):
            raise Mismatch
        return heads

    def _source(self, elements: Elements, heads: int) -> _Source:
        """The channels that elements [channels or heads, ..., depth] of one value come from."""
        shape = self.origins.shape_of(elements.value)
        if len(shape) != 4 or shape[0] != 1:
            raise Mismatch
        known = elements.index[elements.index != OUTSIDE]
        if not known.size:
            raise Mismatch
        channels = known // (shape[2] * shape[3])
        first = int(channels.min())
        return _Source(elements.value, first, int(channels.max()) - first + 1)

    def _weighted(self, channels: Array, rows: Array, columns: Array) -> tuple[Array, Elements]:
        """Of outputs [channels, rows, columns]: the softmax's groups, and for each slot of these
        the elements of v [channels, rows, columns, slots]."""
        _, _, height, width = self.shape
        grid = (channels[:, None, None] * height + rows[:, None]) * width + columns
        total, factor = self.origins.contraction(self.output, grid)
        if factor != 1.0:
            raise Mismatch
        first, second = total
        if first.value != self.softmax.output:
            first, second = second, first
        if first.value != self.softmax.output or first.added.any():
            raise Mismatch
        shape = self.origins.shape_of(self.softmax.output)
        axis = self.softmax.axis
        coordinates = coordinates_of(inside(first.index), shape)
        slots = coordinates[axis]
        coordinates[axis] = np.zeros_like(slots)
        groups = flat_index(coordinates, shape)
        if slots.shape[-1] != shape[axis] or (groups != groups[..., :1]).any():
            raise Mismatch
        order = np.argsort(slots, axis=-1)
        if (np.take_along_axis(slots, order, -1) != np.arange(shape[axis])).any():
            raise Mismatch
        values = Elements(
            second.value,
            np.take_along_axis(second.index, order, -1),
            np.take_along_axis(second.added, order, -1),
        )
        return groups[..., 0], values

    def _scores(self, groups: Array) -> tuple[Elements, Elements, float]:
        """Of softmax groups [heads, rows, columns]: q and k, [heads, rows, columns, slots, depth],
        by ascending elements of q."""
        shape = self.origins.shape_of(self.softmax.output)
        axis = self.softmax.axis
        stride = math.prod(shape[axis + 1 :])
        index = groups[..., None] + np.arange(shape[axis]) * stride
        (q, k), factor = self.origins.contraction(self.softmax.inputs[0], index)
        if q.added.any() or _spread(q) > _spread(k):
            q, k = k, q
        order = np.argsort(q.index, axis=-1)
        q, k = (
            Elements(
                item.value,
                np.take_along_axis(item.index, order, -1),
                np.take_along_axis(item.added, order, -1),
            )
            for item in (q, k)
        )
        return q, k, factor


def _spread(elements: Elements) -> int:
    """Different elements along the slots: one for queries, many for keys."""
    first = elements.index[..., :1, :]
    return int((elements.index != first).sum())


def _rectangle(rows: Array, columns: Array) -> tuple[tuple[int, int], tuple[int, int]]:
    """Origin and size of the rectangle that offsets fill."""
    origin = (int(rows.min()), int(columns.min()))
    size = (int(rows.max()) - origin[0] + 1, int(columns.max()) - origin[1] + 1)
    seen = {*zip(rows.tolist(), columns.tolist(), strict=True)}
    if len(seen) != rows.size or rows.size != math.prod(size):
        raise Mismatch
    return origin, size


def _taps(found: _Match, more: int) -> tuple[Array, Array]:
    """Offsets of the positions of a window, with axes of size 1 behind."""
    kernel = found.relative.shape[1:]
    down, right = coordinates_of(np.arange(math.prod(kernel)), kernel)
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
