"""The search for the largest ratio that holds."""

from __future__ import annotations

import pytest

from qcompile.pruning import MOST_STEPS, STEPS, Trial, best_ratio, largest_ratio


def holds_up_to(limit: float) -> list[float]:
    """The ratios that the search tries where drops are too large above `limit`."""
    trials = largest_ratio(lambda ratio: Trial(ratio, "float", 0.9, ratio, ratio <= limit))
    assert all(trial.holds == (trial.ratio <= limit) for trial in trials)
    assert best_ratio(trials) == pytest.approx(int(limit * STEPS + 1e-9) / STEPS)
    return [trial.ratio for trial in trials]


@pytest.mark.parametrize("limit", [0.0, 0.005, 0.1, 0.333, 0.5, 0.94])
def test_it_finds_the_largest(limit: float) -> None:
    tried = holds_up_to(limit)
    assert len(tried) <= 8
    assert len(set(tried)) == len(tried)


def test_it_ends_where_little_would_be_left() -> None:
    trials = largest_ratio(lambda ratio: Trial(ratio, "float", 0.9, 0.0, True))
    assert best_ratio(trials) == MOST_STEPS / STEPS


def test_below_a_ratio_known_to_fail() -> None:
    trials = largest_ratio(lambda r: Trial(r, "compiled", 0.9, r, r <= 0.07), below=0.1)
    assert all(trial.ratio < 0.1 for trial in trials)
    assert best_ratio(trials) == 0.07


def test_nothing_left_to_try() -> None:
    def never(ratio: float) -> Trial:
        raise AssertionError(ratio)

    assert largest_ratio(never, below=1 / STEPS) == ()
    assert best_ratio(()) == 0.0


def test_it_says_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    trials = largest_ratio(
        lambda ratio: Trial(ratio, "float", 0.9, ratio, ratio < 0.4),
        step=lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, len(trials) + 1))
    assert all(done <= total for done, total in told)
    assert told[-1] == (len(trials), len(trials))
