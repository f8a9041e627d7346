"""What a Dask worker is given once, however often it is started again."""

from __future__ import annotations

from typing import Any

from distributed import WorkerPlugin, get_worker

from qcompile.search.jobs import Json, Work
from qcompile.sim.threads import limit_threads, single_threaded_blas


class ProblemPlugin(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """A problem and its work, under a name. The scheduler hands plugins to every worker that joins,
    so what all jobs share survives the loss of any worker."""

    def __init__(self, name: str, problem: Any, work: Work) -> None:
        self.name = name
        self.problem = problem
        self.work = work


def run_job(name: str, job: Json) -> Json:
    """Runs a job of the problem that the worker has under `name`, in one thread."""
    limit_threads(1)
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, ProblemPlugin)
    with single_threaded_blas():
        return plugin.work(plugin.problem, job)
