"""Images that are larger than the network's input: cut into tiles, and maps put together again.

With a halo, neighbouring tiles overlap, and of each only the middle is kept. A kept pixel is as if
the whole image had been run at once if the halo is at least the network's reach and every tile
starts at a multiple of the network's total stride (`receptive_field.py`); the first and last tiles
lie at the image's own borders, so that the network's padding is the same there. Where size minus
tile is no multiple of the stride, the image is lengthened by its last rows and columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.data_options import parse_halo
from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.receptive_field import receptive_field
from qcompile.types import Array, Shape


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut.

    Attributes:
        halo: pixels along each spatial axis that a tile's neighbours see, too; None: tiles lie side
            by side and images are multiples of a tile.
        stride: tiles start at its multiples, for each spatial axis.
        exact: whether the halo is at least the network's reach.
    """

    halo: Shape | None = None
    stride: Shape = ()
    exact: bool = False

    def cuts(self, size: int, tile: int) -> bool:
        """Whether an axis of `size` pixels can be cut."""
        return size > 0 and (self.halo is not None or size % tile == 0)

    def grid(self, image: Shape, tile: Shape) -> Grid:
        """
        Args:
            image: spatial size of the image.
            tile: that of the network's input.

        Raises:
            UsageError: the halo leaves nothing of a tile.
        """
        if self.halo is None:
            axes = tuple(
                tuple(Span(at, at, at + step) for at in range(0, size, step))
                for size, step in zip(image, tile, strict=True)
            )
        else:
            axes = tuple(
                _overlapping(*sizes)
                for sizes in zip(image, tile, self.halo, self.stride, strict=True)
            )
        return Grid(image, tile, axes)


def choose_tiling(graph: Graph, halo: str | None) -> Tiling:
    """What `--tile-halo` says of a network.

    Raises:
        UsageError: the network's reach is asked for, but it sees the whole image or it cannot be
            said.
    """
    if halo is None:
        return Tiling()
    field = receptive_field(graph)
    pixels = parse_halo(halo)
    if pixels is not None:
        sizes = (pixels,) * len(field.halo)
        return Tiling(sizes, field.stride, field.whole is None and pixels >= max(field.halo))
    if field.whole is not None:
        raise UsageError(
            f"--tile-halo auto: {field.whole.label()} sees the whole image, so no halo makes tiles "
            f"equal to it; give a number of pixels, or leave it out"
        )
    return Tiling(field.halo, field.stride, True)


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis: it starts at `start`, and `begin` to `end` of the image are kept."""

    start: int
    begin: int
    end: int


def _overlapping(size: int, tile: int, halo: int, stride: int) -> tuple[Span, ...]:
    if size <= tile:
        return (Span(0, 0, size),)
    # In units of the stride: how far starts may be apart, and how far the last one is away.
    step = (tile - 2 * halo) // stride
    if step < 1:
        raise UsageError(
            f"--tile-halo: {halo} pixels on both sides leave nothing of a tile of {tile} (tiles "
            f"start at multiples of {stride}); use a smaller halo or a larger --input-shape"
        )
    last = -(-(size - tile) // stride)
    gaps = -(-last // step)
    starts = [index * last // gaps * stride for index in range(gaps + 1)]
    middles = [(first + second + tile) // 2 for first, second in itertools.pairwise(starts)]
    return tuple(
        Span(start, begin, min(end, size))
        for start, begin, end in zip(starts, [0, *middles], [*middles, size], strict=True)
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """The tiles of one image, row by row.

    Attributes:
        image: spatial size.
        tile: spatial size of each.
        axes: for each spatial axis its spans.
    """

    image: Shape
    tile: Shape
    axes: tuple[tuple[Span, ...], ...]

    def __len__(self) -> int:
        return int(np.prod([len(spans) for spans in self.axes]))

    def spans(self) -> Iterator[tuple[Span, ...]]:
        """One span for each axis, tile by tile."""
        return itertools.product(*self.axes)

    def cut(self, image: Array, index: int, channels: int) -> Array:
        """Tile `index` of an image without batch axis, with one.

        Args:
            image: its spatial axes have the size of the grid.
            index: of the tile.
            channels: the image's other axis.
        """
        corner = np.unravel_index(index, [len(spans) for spans in self.axes])
        starts = [spans[int(at)].start for spans, at in zip(self.axes, corner, strict=True)]
        place = [slice(start, start + size) for start, size in zip(starts, self.tile, strict=True)]
        place.insert(channels, slice(None))
        part = image[tuple(place)]
        wanted = list(self.tile)
        wanted.insert(channels, image.shape[channels])
        if part.shape != tuple(wanted):
            missing = [(0, size - has) for size, has in zip(wanted, part.shape, strict=True)]
            part = np.pad(part, missing, mode="edge")
        return part[None]

    def assemble(self, parts: Sequence[Array]) -> Array:
        """Maps [*tile] of all tiles as one map of the image's size."""
        whole = np.empty(self.image, dtype=parts[0].dtype)
        for part, spans in zip(parts, self.spans(), strict=True):
            inside = tuple(slice(s.begin - s.start, s.end - s.start) for s in spans)
            whole[tuple(slice(s.begin, s.end) for s in spans)] = part[inside]
        return whole


def spatial_shape(shape: Shape) -> Shape:
    """The spatial sizes of a network input [1, ...]."""
    axis = channel_axis(shape)
    return tuple(size for index, size in enumerate(shape) if index not in (0, axis))


def grid_of(image: Shape, shape: Shape, tiling: Tiling) -> Grid:
    """The grid of an image [...] in the axis order of a network input [1, ...]."""
    axis = channel_axis(shape) - 1
    return tiling.grid(image[:axis] + image[axis + 1 :], spatial_shape(shape))


def cut_tile(image: Array, shape: Shape, grid: Grid, index: int) -> Array:
    """Tile `index` of an image [...] as a network input [1, ...]."""
    return grid.cut(image, index, channel_axis(shape) - 1)
