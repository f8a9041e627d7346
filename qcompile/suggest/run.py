"""Which images to annotate next: of the most uncertain ones those that stand for the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile.data import choose_tiling, reading_options
from qcompile.data.tiling import Tiling
from qcompile.errors import UsageError
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.pipeline import input_shapes
from qcompile.suggest.cover import Chosen, cosine_similarity, greedy_cover, most_uncertain
from qcompile.suggest.disagreement import Opinion, opinions
from qcompile.suggest.ensemble_file import MemberFile
from qcompile.suggest.members import Member, Progress, check_alike, check_one_input, load_member
from qcompile.suggest.pool import Pool, load_pool, read_annotated
from qcompile.types import Shape

CANDIDATES_EACH = 2
"""Candidates for each image that is asked for, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class SuggestOptions:
    """
    Attributes:
        count: images to suggest.
        candidates: of how many of the most uncertain ones; None: `CANDIDATES_EACH` times `count`.
        features: name of the tensor that describes images; None: the deepest feature map.
        annotated: lists of images that have labels already.
    """

    count: int
    candidates: int | None = None
    features: str | None = None
    annotated: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"--count {self.count}: nothing to choose; use at least 1")
        if self.candidates is not None and self.candidates < self.count:
            raise UsageError(
                f"--candidates {self.candidates}: fewer than --count {self.count}; use more"
            )

    @property
    def most(self) -> int:
        """Candidates."""
        return self.candidates or CANDIDATES_EACH * self.count


@dataclass(frozen=True)
class Suggestion:
    """
    Attributes:
        pool: all images.
        members: the ensemble.
        tiling: how large images were cut.
        annotated: indices of images that have labels.
        uncertainty: of every image.
        candidates: indices, the most uncertain first.
        chosen: in the order of the choice; `place` is one among the candidates.
    """

    pool: Pool
    members: tuple[Member, ...]
    tiling: Tiling
    annotated: tuple[int, ...]
    uncertainty: tuple[float, ...]
    candidates: tuple[int, ...]
    chosen: tuple[Chosen, ...]

    @property
    def images(self) -> tuple[int, ...]:
        """Indices of the suggested images, in the order of the choice."""
        return tuple(self.candidates[item.place] for item in self.chosen)

    def opinions(self, workers: int | None = None) -> list[Opinion]:
        """What the ensemble says of the suggested images."""
        return list(opinions(self.members, self.pool, self.images, self.tiling, workers))


def suggest(
    files: Sequence[tuple[MemberFile, CompileOptions, bool]],
    pool_text: str,
    chosen: SuggestOptions,
    progress: Progress,
) -> Suggestion:
    """Chooses images to annotate next.

    Args:
        files: each network with the options of its compilation, and whether its integers are to
            run.
        pool_text: as `load_pool` takes it.
        chosen: how many, and among which.
        progress: told about the long stages.

    Raises:
        QCompileError: models, images or options are wrong; nothing is written.
    """
    first, options, _ = files[0]
    shape = _input_shape(first.model, options)
    pool = load_pool(pool_text, shape, options.input_kind, reading_options(options))
    known = sorted({index for path in chosen.annotated for index in read_annotated(path, pool)})
    left = [index for index in range(len(pool.names)) if index not in set(known)]
    if len(left) < chosen.count:
        raise UsageError(
            f"--count {chosen.count}: the pool has {len(left)} images without labels; use fewer"
        )
    members = []
    for done, (file, its, quantised) in enumerate(files):
        members.append(load_member(file.model, its, quantised, pool.kind, chosen.features))
        progress("models", done + 1, len(files))
    check_alike(members)
    tiling = choose_tiling(members[0].graph, options.tile_halo)
    every = opinions(
        members,
        pool,
        range(len(pool.names)),
        tiling,
        options.workers or None,
        lambda done, total: progress("images", done, total),
    )
    uncertainty, descriptors = [], []
    for item in every:
        uncertainty.append(item.uncertainty)
        descriptors.append(item.descriptor)
    if not any(uncertainty):
        raise UsageError(
            "--models: the networks agree on every pixel of every image, so they are the same; "
            "train them on different samples ('qcompile ensemble')"
        )
    vectors = np.stack(descriptors)
    candidates = most_uncertain(uncertainty, left, chosen.most)
    steps = greedy_cover(
        cosine_similarity(vectors, vectors[candidates]),
        chosen.count,
        cosine_similarity(vectors, vectors[known]),
    )
    return Suggestion(
        pool,
        tuple(members),
        tiling,
        tuple(known),
        tuple(uncertainty),
        tuple(candidates),
        tuple(steps),
    )


def _input_shape(model: Path, options: CompileOptions) -> Shape:
    """
    Raises:
        UsageError: the model takes several inputs.
    """
    imported = import_model(model, input_shapes(model, options))
    check_one_input(imported, model)
    return imported.types[imported.inputs[0]].shape
