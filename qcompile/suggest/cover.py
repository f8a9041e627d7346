"""Greedy maximum set cover: few images that stand for many.

L. Yang, Y. Zhang, J. Chen, S. Zhang, D. Z. Chen, Suggestive Annotation: A Deep Active Learning
Framework for Biomedical Image Segmentation, MICCAI 2017 (arXiv 1706.04737), section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.types import Array

SIMILARITY_DIGITS, GAIN_DIGITS = 12, 9
"""Decimals that count. What lies below depends on the order in which a library adds, and would
decide between equal images."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One step of the greedy search.

    Attributes:
        place: of the image among the candidates.
        gain: by how much it raised F.
        cover: F with it and all before it.
    """

    place: int
    gain: float
    cover: float


def cosine_similarity(descriptors: Array, others: Array) -> Array:
    """Cosines of the angles between descriptors [N, D] and others [M, D], float64 [N, M].

    A descriptor of zeros is like nothing, not even itself.
    """
    return np.asarray(np.round(_units(descriptors) @ _units(others).T, SIMILARITY_DIGITS))


def _units(descriptors: Array) -> Array:
    vectors = np.asarray(descriptors, dtype=np.float64)
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))


def most_uncertain(uncertainty: Sequence[float], among: Sequence[int], count: int) -> list[int]:
    """At most `count` of the images `among`, the most uncertain first; ties by lower index."""
    return sorted(among, key=lambda index: (-uncertainty[index], index))[:count]


def greedy_cover(similarity: Array, count: int, known: Array | None = None) -> list[Chosen]:
    """Chooses images S one by one so that F(S) = sum over I of max over J in S of sim(I, J) grows
    most, where I runs over all images.

    F of no image is 0, and similarities below 0 count as 0, so that F never falls. The greedy
    choice then reaches at least 1 - 1/e of what is possible.

    Args:
        similarity: [N, candidates]; of equal gains the earlier candidate wins.
        count: how many to choose, at most.
        known: similarity [N, M] with images that are in S from the start.
    """
    similar = np.maximum(similarity, 0)
    best = np.zeros(len(similar))
    if known is not None and known.shape[1]:
        best = np.maximum(known, 0).max(axis=1)
    left = list(range(similar.shape[1]))
    chosen: list[Chosen] = []
    while left and len(chosen) < count:
        gains = np.round(np.maximum(similar[:, left] - best[:, None], 0).sum(axis=0), GAIN_DIGITS)
        at = int(np.argmax(gains))
        place = left.pop(at)
        best = np.maximum(best, similar[:, place])
        chosen.append(Chosen(place, float(gains[at]), float(best.sum())))
    return chosen
