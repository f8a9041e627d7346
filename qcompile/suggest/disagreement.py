"""Where the networks of an ensemble disagree, image by image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.data.tiling import Tiling, spatial_shape
from qcompile.errors import ModelError
from qcompile.evaluate import PARALLEL_ELEMENTS
from qcompile.sim.parallel import worker_count
from qcompile.suggest.members import Member, Seen
from qcompile.suggest.pool import Pool
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an ensemble says of one image.

    Attributes:
        index: of the image in the pool.
        mean: over the networks, probability of each class that is told apart, [classes, *spatial].
        deviation: standard deviation over the networks, mean over classes, [*spatial].
        descriptor: mean over the networks (and tiles) of their deepest features, [channels].
    """

    index: int
    mean: Array
    deviation: Array
    descriptor: Array

    @property
    def uncertainty(self) -> float:
        """Mean over pixels of the deviation."""
        return float(self.deviation.mean(dtype=np.float64))


def opinions(
    members: Sequence[Member],
    pool: Pool,
    indices: Sequence[int],
    tiling: Tiling,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Opinion]:
    """What an ensemble says of some images of a pool, in order.

    Args:
        members: alike networks (`check_alike`).
        pool: the images.
        indices: which of them.
        tiling: how large images are cut.
        workers: processes, all networks together; None is one a core. Small jobs need none.
        progress: told of every image.

    Raises:
        ModelError: a network computes infinities or NaN.
        DataError: an image does not fit.
    """
    shape = members[0].shape
    spatial = spatial_shape(shape)
    grids = pool.grids(shape, tiling)
    runs = sum(len(grids[index]) for index in indices) * len(members)
    elements = sum(members[0].graph.types[value].size for value in members[0].graph.activations())
    each = 1
    if elements * runs >= PARALLEL_ELEMENTS:
        each = max(1, worker_count(workers) // len(members))
    seen = [member.run(pool.feeds(indices, shape, tiling), each) for member in members]
    for done, index in enumerate(indices):
        grid = tiling.grid(grids[index].image, spatial)
        tiles = [list(itertools.islice(part, len(grid))) for part in seen]
        found = _opinion(index, [_whole(part, grid.assemble) for part in tiles])
        if not np.isfinite(found.uncertainty) or not np.isfinite(found.descriptor).all():
            raise ModelError(
                f"--pool: the networks compute no numbers (infinite or NaN) of image "
                f"{pool.names[index]}; check --input-scale, --input-mean and --input-std"
            )
        yield found
        if progress is not None:
            progress(done + 1, len(indices))
    for part in seen:
        next(part, None)  # lets the generators finish and end their processes


def _whole(tiles: Sequence[Seen], assemble: Callable[[Sequence[Array]], Array]) -> Seen:
    """What one network says of an image, from what it says of its tiles."""
    classes = len(tiles[0].chances)
    return Seen(
        np.stack([assemble([tile.chances[at] for tile in tiles]) for at in range(classes)]),
        np.asarray(np.mean([tile.descriptor for tile in tiles], axis=0)),
    )


def _opinion(index: int, seen: Sequence[Seen]) -> Opinion:
    chances = np.stack([item.chances for item in seen])
    return Opinion(
        index,
        chances.mean(axis=0),
        chances.std(axis=0).mean(axis=0),
        np.asarray(np.mean([item.descriptor for item in seen], axis=0)),
    )
