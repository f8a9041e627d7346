"""Parts of one tensor in parallel threads, each with a single-threaded BLAS.

A BLAS that splits every small product over its own threads waits for the slowest of them at every
product, which costs tens of times the work itself as soon as another program needs a core. Whole
tiles in threads of our own (numpy releases the interpreter lock) meet once an operator, copy and
finish in parallel too, and give the same float digits for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Part = TypeVar("Part")

_limit: int | None = None


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(count: int) -> None:
    """Later calls use at most `count` threads; for processes that share a machine."""
    global _limit
    _limit = max(1, count)


def in_lanes(work: Callable[[Sequence[Part]], None], parts: Sequence[Part]) -> None:
    """Deals `parts` out to the threads; each calls `work` once, with its share in order."""
    lanes = min(len(parts), cores() if _limit is None else _limit)
    if lanes <= 1:
        work(parts)
        return
    others = [_pool().submit(work, parts[lane::lanes]) for lane in range(1, lanes)]
    work(parts[::lanes])
    for other in others:
        other.result()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Inside, every BLAS of the process uses the calling thread only."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="qcompile-sim")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
