"""The greedy choice against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from qcompile.suggest.cover import cosine_similarity, greedy_cover, most_uncertain
from qcompile.types import Array


def cover(similarity: Array, chosen: list[int]) -> float:
    """F(S), written as in the paper."""
    return math.fsum(
        max([0.0, *(float(similarity[image, other]) for other in chosen)])
        for image in range(len(similarity))
    )


def vectors(seed: int, count: int = 9, size: int = 4) -> Array:
    return np.random.default_rng(seed).normal(size=(count, size))


@pytest.mark.parametrize("seed", range(5))
def test_every_step_is_the_best_one(seed: int) -> None:
    descriptors = vectors(seed)
    candidates = [7, 2, 5, 0, 4]
    similarity = cosine_similarity(descriptors, descriptors)
    steps = greedy_cover(similarity[:, candidates], 4)
    chosen: list[int] = []
    for step in steps:
        gains = {
            index: cover(similarity, [*chosen, index]) - cover(similarity, chosen)
            for index in candidates
            if index not in chosen
        }
        index = candidates[step.place]
        assert gains[index] == pytest.approx(max(gains.values()), abs=1e-8)
        assert step.gain == pytest.approx(gains[index], abs=1e-8)
        chosen.append(index)
        assert step.cover == pytest.approx(cover(similarity, chosen), abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_greed_holds(seed: int) -> None:
    descriptors = vectors(seed, 8, 3)
    similarity = cosine_similarity(descriptors, descriptors)
    best = max(cover(similarity, list(some)) for some in itertools.combinations(range(8), 3))
    assert best >= greedy_cover(similarity, 3)[-1].cover - 1e-9 >= (1 - 1 / math.e) * best - 1e-9


def test_images_that_are_labelled_cover_what_is_like_them() -> None:
    descriptors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1.0]])
    similarity = cosine_similarity(descriptors, descriptors)
    assert [step.place for step in greedy_cover(similarity, 2)] == [0, 3]
    known = cosine_similarity(descriptors, descriptors[[2]])
    steps = greedy_cover(similarity, 2, known)
    assert [(step.place, step.gain) for step in steps] == [(3, 2.0), (0, 0.0)]


def test_of_equals_the_first_wins() -> None:
    descriptors = np.repeat(vectors(3, 1, 50), 40, axis=0)
    similarity = cosine_similarity(descriptors, descriptors)
    assert set(similarity.reshape(-1)) == {1.0}
    assert [step.place for step in greedy_cover(similarity, 3)] == [0, 1, 2]
    assert most_uncertain([0.5, 0.7, 0.5, 0.7], [3, 2, 1, 0], 3) == [1, 3, 0]


def test_there_may_be_fewer_candidates_than_wanted() -> None:
    similarity = cosine_similarity(vectors(1), vectors(1)[:2])
    assert sorted(step.place for step in greedy_cover(similarity, 5)) == [0, 1]


def test_nothing_is_like_a_descriptor_of_zeros() -> None:
    descriptors = np.array([[0, 0], [1, 0.0]])
    assert cosine_similarity(descriptors, descriptors).tolist() == [[0, 0], [0, 1]]
