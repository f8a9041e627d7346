"""Jobs of a search: many small ones on one large problem, run somewhere, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

Json = dict[str, Any]

Work = Callable[[Any, Json], Json]
"""work(problem, job) -> result. A function of an importable module: it runs in other processes."""

MOST_ATTEMPTS = 3
"""A job that takes its process down as often as this is given up."""


class Runner(Protocol):
    """Somewhere jobs are run."""

    def run(self, jobs: Mapping[str, Json]) -> Iterator[tuple[str, Json | None]]:
        """Results by name of the job, in the order they are finished.

        None is the result of a job whose process died `MOST_ATTEMPTS` times.
        """
        ...
