"""Jobs on a Dask cluster that is running somewhere (extra `cluster`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qcompile.errors import ToolError, UsageError
from qcompile.search.jobs import MOST_ATTEMPTS, Json, Work
from qcompile.search.store import code_digest
from qcompile.sim.threads import limit_threads, single_threaded_blas

CONNECT_SECONDS = 20


@dataclass(frozen=True)
class DaskRunner:
    """The cluster of a scheduler: one job takes one thread of a worker.

    The problem is sent to every worker once. A worker that is lost costs the jobs it was running,
    which are run elsewhere.
    """

    problem: Any
    work: Work
    address: str

    def run(self, jobs: Mapping[str, Json]) -> Iterator[tuple[str, Json | None]]:
        """As in `Runner`.

        Raises:
            UsageError: Dask is not installed here, or workers have another qcompile or none.
            ToolError: the scheduler cannot be reached, or has no workers.
        """
        if not jobs:
            return
        try:
            import distributed
        except ImportError:
            raise UsageError(
                "--scheduler: needs Dask; install it with pip install 'qcompile[cluster]'"
            ) from None
        with self._client(distributed) as client:
            yield from self._run(distributed, client, jobs)

    def _client(self, distributed: Any) -> Any:
        try:
            client = distributed.Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ToolError(
                f"--scheduler {self.address}: cannot be reached ({error}); start one with "
                f"'dask scheduler' and give its address"
            ) from None
        try:
            self._check_workers(client)
        except BaseException:
            client.close()
            raise
        return client

    def _check_workers(self, client: Any) -> None:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise ToolError(
                f"--scheduler {self.address}: has no workers; start some with "
                f"'dask worker {self.address}'"
            ) from None
        found = client.run(_digest, on_error="return")
        for worker, digest in found.items():
            if digest != code_digest():
                raise UsageError(
                    f"--scheduler {self.address}: the worker at {worker} has another version of "
                    f"qcompile, or none; install the same one there"
                )

    def _run(
        self, distributed: Any, client: Any, jobs: Mapping[str, Json]
    ) -> Iterator[tuple[str, Json | None]]:
        attempts = dict.fromkeys(jobs, 0)
        left = set(jobs)
        while left:
            shared = self._sent(client)
            names = {}
            for name in sorted(left, key=list(jobs).index):
                attempts[name] += 1
                key = f"qcompile-{uuid.uuid4().hex}"
                names[key] = (
                    name,
                    client.submit(_run_job, self.work, shared, jobs[name], key=key, pure=False),
                )
            waiting = distributed.as_completed(
                [future for _, future in names.values()], loop=client.loop
            )
            for future in waiting:
                name = names[future.key][0]
                if future.status == "finished":
                    left.discard(name)
                    yield name, future.result()
                elif not _is_lost(distributed, future):
                    future.result()  # raises what the job raised
                elif attempts[name] >= MOST_ATTEMPTS:
                    left.discard(name)
                    yield name, None

    def _sent(self, client: Any) -> Any:
        try:
            return client.scatter(self.problem, broadcast=True, hash=False)
        except TimeoutError:
            raise ToolError(
                f"--scheduler {self.address}: lost all its workers; start some and repeat the "
                f"command, which goes on where it was"
            ) from None


def _is_lost(distributed: Any, future: Any) -> bool:
    """Whether it was the worker that failed, not the job."""
    if future.status in ("cancelled", "lost"):
        return True
    return isinstance(future.exception(), distributed.KilledWorker | OSError)


def _digest() -> str:
    return code_digest()


def _run_job(work: Work, problem: Any, job: Json) -> Json:
    limit_threads(1)
    with single_threaded_blas():
        return work(problem, job)
