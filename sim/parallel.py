"""Runs one graph over many inputs in parallel processes, in a fixed order."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from types import ModuleType
from typing import Any, TypeVar

from qcompile.errors import ToolError
from qcompile.graph import Graph
from qcompile.sim.executor import Executor
from qcompile.sim.threads import cores, limit_threads
from qcompile.types import Array

Values = Mapping[str, Array]
Result = TypeVar("Result")

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Thread counts that BLAS libraries read when they are loaded."""

_SPAWNING = threading.Lock()


def run_many(
    graph: Graph,
    feeds: Iterable[Mapping[str, Array]],
    taps: Collection[str] | None = None,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> Iterator[dict[str, Array]]:
    """The outputs (and taps) of `graph` for each feed, in the order of the feeds.

    No digit of a result depends on `workers`.

    Args:
        graph: a float or integer graph.
        feeds: read lazily, a few ahead of the result that is taken.
        taps: as in `Executor.run`.
        workers: processes; None is one a core. One worker runs in this process.
        progress: called after each result.

    Raises:
        ToolError: a worker died (usually for lack of memory).
        DataError: a feed does not fit, at the time its result is taken.
    """
    return map_many(graph, feeds, dict, taps, workers, progress)


def map_many(
    graph: Graph,
    feeds: Iterable[Mapping[str, Array]],
    reduce: Callable[[dict[str, Array]], Result],
    taps: Collection[str] | None = None,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Like `run_many`, but each process applies `reduce` to its values and sends only the result:
    statistics of many large tensors travel cheaply.

    `reduce` must be picklable and defined in an importable module, not in the main script.
    """
    count = worker_count(workers)
    if count == 1:
        executor = Executor(graph)
        for feed in feeds:
            yield reduce(executor.run(feed, taps))
            if progress is not None:
                progress()
        return
    Executor(graph)  # its errors belong to the caller, not to a dying worker
    pool = ProcessPoolExecutor(
        count,
        get_context("spawn"),
        initializer=_prepare,
        initargs=(graph, max(1, cores() // count)),
    )
    waiting: deque[Future[Any]] = deque()
    source = iter(feeds)
    try:
        while True:
            for feed in islice(source, 2 * count - len(waiting)):
                with spawn_environment():
                    waiting.append(pool.submit(_run, dict(feed), taps, reduce))
            if not waiting:
                return
            yield waiting.popleft().result()
            if progress is not None:
                progress()
    except BrokenProcessPool as error:
        raise ToolError(
            f"a simulator process died while running '{graph.name}', probably for lack of memory; "
            f"use fewer workers than {count}"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_count(workers: int | None) -> int:
    """`workers`, or one a core; always one inside a worker process."""
    if _executor is not None:
        return 1
    return max(1, cores() if workers is None else workers)


_executor: Executor | None = None
"""In a worker process: its copy of the graph, prepared once."""


def _prepare(graph: Graph, threads: int) -> None:
    global _executor
    limit_threads(threads)
    _executor = Executor(graph)


def _run(
    feed: Mapping[str, Array],
    taps: Collection[str] | None,
    reduce: Callable[[dict[str, Array]], Result],
) -> Result:
    assert _executor is not None
    return reduce(_executor.run(feed, taps))


@contextmanager
def spawn_environment() -> Iterator[None]:
    """While processes start: their BLAS libraries are told to start no threads, and the user's main
    script is hidden, so that it is not executed again in every process (it may lack a `__main__`
    guard)."""
    with _SPAWNING:
        saved = {name: os.environ.get(name) for name in BLAS_VARIABLES}
        main = sys.modules["__main__"]
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
