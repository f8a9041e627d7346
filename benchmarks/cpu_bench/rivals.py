"""Programs that run the same network, timed in turns in processes of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

WARM_UP = 3


@dataclass(frozen=True)
class Rival:
    """One program with one model.

    Attributes:
        name: in tables.
        instructions: what it may use: rivals with equal text are compared.
        command: starts a process that follows the protocol of `timer.c`.
        environment: variables besides the present ones.
        artefact_bytes: the model's files, or the program where the model is part of it.
        install_bytes: what must be installed besides.
    """

    name: str
    instructions: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    artefact_bytes: int = 0
    install_bytes: int = 0


@dataclass
class Measured:
    """What was seen of a rival; times in seconds, of one run each.

    Attributes:
        seconds: by the clock.
        cpu: CPU time of all threads, a mean for each round.
        cold: from the start of the process to the first result, files in the page cache.
        peak_bytes: the largest resident size of the process.
    """

    rival: Rival
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)


class Running:
    """A rival's process, which has computed its first result."""

    def __init__(self, rival: Rival, threads: int) -> None:
        allowed = os.sched_getaffinity(0)
        if threads == 1:
            # All rivals share a core, and one of them at a time is busy. Set here and inherited:
            # with work to do between fork and exec, starting a process would take longer.
            os.sched_setaffinity(0, {max(allowed)})
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            rival.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **rival.environment},
        )
        os.sched_setaffinity(0, allowed)
        assert self.process.stdout is not None
        word, _, self.note = self.process.stdout.readline().strip().partition(" ")
        self.cold_seconds = time.perf_counter() - begin
        if word != "first":
            raise RuntimeError(f"{rival.name}: no first result")

    def batch(self, runs: int) -> tuple[list[float], float]:
        """Seconds of each of the runs, and the CPU time of one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        times, _, cpu = self.process.stdout.readline().partition("|")
        return [float(text) for text in times.split()], float(cpu)

    def peak_bytes(self) -> int:
        """The largest resident size so far. That of `getrusage` would include the parent's."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)

    def close(self) -> str:
        """Ends the process; returns what it printed last."""
        rest, _ = self.process.communicate()
        return rest


def measure(
    rivals: Sequence[Rival], threads: int, rounds: int, batch_seconds: float, cold_starts: int
) -> list[Measured]:
    """Times all rivals: in each round each computes for about `batch_seconds`, one after another.

    Raises:
        RuntimeError: a rival did not run.
    """
    results = [Measured(rival) for rival in rivals]
    running = [Running(rival, threads) for rival in rivals]
    try:
        runs = []
        for process in running:
            times, _ = process.batch(WARM_UP)
            runs.append(max(1, round(batch_seconds / min(times))))
        for turn in range(rounds):
            order = [(turn + place) % len(rivals) for place in range(len(rivals))]
            for index in order:
                times, cpu = running[index].batch(runs[index])
                results[index].seconds += times
                results[index].cpu.append(cpu)
        for result, process in zip(results, running, strict=True):
            result.peak_bytes = process.peak_bytes()
    finally:
        for process in running:
            process.close()
    for _ in range(cold_starts):
        for result in results:
            process = Running(result.rival, threads)
            result.cold.append(process.cold_seconds)
            process.close()
    return results
