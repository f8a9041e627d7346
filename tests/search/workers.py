"""Work for runners under test: importable in other processes, unlike what a test defines."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def double(problem: int, job: dict[str, Any]) -> dict[str, Any]:
    return {"result": problem * job["value"]}


def growing_double(problem: int, job: dict[str, Any]) -> dict[str, Any]:
    """The first two are done at once, later ones take a while."""
    time.sleep(0 if job["value"] < 2 else 8)
    return double(problem, job)


def die_once(problem: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The job 'deadly' kills its process the first time, that named 'always' every time."""
    mark = problem / f"{job['name']}.done"
    if job["name"] == "always" or (job["name"] == "deadly" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with mark.open("a") as file:
        file.write("x")
    return {"result": job["name"]}


def fail(problem: int, job: dict[str, Any]) -> dict[str, Any]:
    raise ArithmeticError("a bug")
