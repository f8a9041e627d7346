from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qcompile.errors import ToolError, UsageError
from qcompile.search import dask_runner
from qcompile.search.dask_runner import DaskRunner
from tests.search import workers

dask = pytest.importorskip("dask", reason="the extra 'cluster' is not installed")
distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")

JOBS = {str(value): {"value": value} for value in range(8)}


def local_cluster() -> Any:
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with local_cluster() as found:
        yield found


def test_every_job_has_its_result(cluster: Any) -> None:
    found = dict(DaskRunner(3, workers.double, cluster.scheduler_address).run(JOBS))
    assert found == {name: {"result": 3 * int(name)} for name in JOBS}


def test_an_error_of_a_job_is_an_error_here(cluster: Any) -> None:
    with pytest.raises(ArithmeticError, match="a bug"):
        list(DaskRunner(1, workers.fail, cluster.scheduler_address).run(JOBS))


def test_workers_of_another_version_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_runner, "code_digest", lambda: "another")
    with pytest.raises(UsageError, match="has another version of qcompile"):
        list(DaskRunner(3, workers.double, cluster.scheduler_address).run(JOBS))


def test_a_scheduler_nobody_runs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_runner, "CONNECT_SECONDS", 1)
    with pytest.raises(ToolError, match=r"tcp://127\.0\.0\.1:1: cannot be reached"):
        list(DaskRunner(3, workers.double, "tcp://127.0.0.1:1").run(JOBS))


def test_without_dask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'qcompile\[cluster\]'"):
        list(DaskRunner(3, workers.double, "tcp://127.0.0.1:1").run(JOBS))


def test_a_worker_that_dies_loses_nothing(tmp_path: Path) -> None:
    jobs = {name: {"name": name} for name in ("a", "deadly", "b", "c")}
    with local_cluster() as cluster:
        found = dict(DaskRunner(tmp_path, workers.die_once, cluster.scheduler_address).run(jobs))
    assert found == {name: {"result": name} for name in jobs}


def test_a_job_that_no_worker_survives_is_given_up(tmp_path: Path) -> None:
    jobs = {"always": {"name": "always"}}
    # Dask would try it on a few workers; one death is enough here.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local_cluster() as found:
        runner = DaskRunner(tmp_path, workers.die_once, found.scheduler_address)
        assert dict(runner.run(jobs)) == {"always": None}
