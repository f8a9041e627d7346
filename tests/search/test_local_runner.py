from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qcompile.search.local_runner import LocalRunner
from tests.search import workers

JOBS = {str(value): {"value": value} for value in range(5)}


@pytest.mark.parametrize("count", [1, 2])
def test_every_job_has_its_result(count: int) -> None:
    found = dict(LocalRunner(3, workers.double, count).run(JOBS))
    assert found == {name: {"result": 3 * int(name)} for name in JOBS}


def test_a_worker_that_dies_loses_nothing(tmp_path: Path) -> None:
    jobs = {name: {"name": name} for name in ("a", "deadly", "b", "always", "c", "d")}
    found = dict(LocalRunner(tmp_path, workers.die_once, 2).run(jobs))
    # Only what kills its process each time is given up.
    assert found == {
        **{name: {"result": name} for name in ("a", "b", "c", "d", "deadly")},
        "always": None,
    }


def test_an_error_of_a_job_is_an_error_here() -> None:
    with pytest.raises(ArithmeticError, match="a bug"):
        list(LocalRunner(1, workers.fail, 2).run(JOBS))


def test_no_jobs_start_no_processes() -> None:
    assert not list(LocalRunner(1, workers.fail, 2).run({}))


INTERRUPTED = """
import signal

from qcompile.search.local_runner import LocalRunner
from tests.search import workers

# As in a terminal: what a shell runs in the background starts with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    jobs = {str(value): {"value": value} for value in range(9)}
    for name, result in LocalRunner(1, workers.growing_double, 2).run(jobs):
        print(name, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_ends_everything_at_once_and_quietly() -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("0", "1")  # both processes are at work
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "stopped"
    assert err == ""
    assert time.monotonic() - start < 25  # the jobs left would take longer
