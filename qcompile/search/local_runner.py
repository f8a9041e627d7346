"""Jobs in processes of this machine."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from qcompile.search.jobs import MOST_ATTEMPTS, Json, Work
from qcompile.sim.parallel import spawn_environment
from qcompile.sim.threads import limit_threads, single_threaded_blas


@dataclass(frozen=True)
class LocalRunner:
    """`workers` processes of one thread each; with one, everything runs in this process.

    A process that dies (usually for lack of memory) takes its pool down. What ran then is run
    again, one job at a time, so that only the job at fault can be given up.
    """

    problem: Any
    work: Work
    workers: int

    def run(self, jobs: Mapping[str, Json]) -> Iterator[tuple[str, Json | None]]:
        """As in `Runner`."""
        if self.workers == 1 or len(jobs) == 0:
            for name, job in jobs.items():
                yield name, self.work(self.problem, job)
            return
        waiting, suspects = deque(jobs), deque[str]()
        attempts = dict.fromkeys(jobs, 0)
        while waiting or suspects:
            pool = self._pool(min(self.workers, len(waiting) or 1))
            running: dict[Future[Json], str] = {}
            try:
                while waiting or suspects or running:
                    most = 1 if suspects else self.workers
                    while len(running) < most and (suspects or waiting):
                        name = suspects.popleft() if suspects else waiting.popleft()
                        attempts[name] += 1
                        with spawn_environment(), _interrupts_held_back():
                            running[pool.submit(_run, self.work, jobs[name])] = name
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                for name in running.values():
                    if attempts[name] < MOST_ATTEMPTS:
                        suspects.append(name)
                    else:
                        yield name, None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_prepare, initargs=(self.problem,)
        )


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that start now do not hear of Ctrl-C until `_prepare`: while they import, all that
    they could say of it is a traceback. This process hears of it at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_problem: list[Any] = []
"""In a worker process: its copy of the problem."""


def _prepare(problem: Any) -> None:
    # Ctrl-C reaches every process of the terminal; only the first one has something to say.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    limit_threads(1)
    _problem[:] = [problem]


def _run(work: Work, job: Json) -> Json:
    with single_threaded_blas():
        return work(_problem[0], job)
