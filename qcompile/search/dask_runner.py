"""Jobs on a Dask cluster that is running somewhere (extra `cluster`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qcompile.errors import ToolError, UsageError
from qcompile.search.jobs import Json, Work
from qcompile.search.store import code_digest

CONNECT_SECONDS = 60


@dataclass(frozen=True)
class DaskRunner:
    """The cluster of a scheduler: one job takes one thread of a worker.

    The problem is sent to every worker once, also to those that join later. A worker that is lost
    costs the jobs it was running, which are run elsewhere, or wait for another worker.
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
        from qcompile.search.dask_plugin import ProblemPlugin, run_job

        name = f"qcompile-{uuid.uuid4().hex}"
        client.register_plugin(ProblemPlugin(name, self.problem, self.work))
        try:
            labels = {f"{name}-{index}": label for index, label in enumerate(jobs)}
            futures = [
                client.submit(run_job, name, jobs[label], key=key, pure=False)
                for key, label in labels.items()
            ]
            for future in distributed.as_completed(futures, loop=client.loop):
                try:
                    result = future.result()
                except distributed.KilledWorker:
                    # Worker after worker died of it; Dask's `allowed-failures` says how many.
                    result = None
                future.release()  # a worker that is lost later need not compute it again
                yield labels[future.key], result
        finally:
            client.unregister_worker_plugin(name)


def _digest() -> str:
    return code_digest()
