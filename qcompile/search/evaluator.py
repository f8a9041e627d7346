"""Plans in, measurements out: each measured once, here or in an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qcompile.plan import Plan
from qcompile.search.jobs import MOST_ATTEMPTS, Runner
from qcompile.search.measured import Measured
from qcompile.search.plan_json import plan_to_json
from qcompile.search.store import Store, key_of

Progress = Callable[[int, int], None]


class Evaluator:
    """Runs what the store does not know yet, and keeps every result the moment it comes.

    Attributes:
        measured: how many plans were run here.
        remembered: how many came from the store.
    """

    def __init__(
        self, identity: str, runner: Runner, store: Store | None, progress: Progress | None = None
    ) -> None:
        self._identity = identity
        self._runner = runner
        self._store = store
        self._progress = progress
        self._known: dict[str, Measured] = {}
        self._announced = 0
        self.measured = 0
        self.remembered = 0

    def key(self, plan: Plan) -> str:
        """What a plan's result is stored under."""
        return key_of(self._identity, plan_to_json(plan))

    def measure(self, plans: Iterable[Plan]) -> list[Measured]:
        """The results of the plans, in their order."""
        keys = []
        jobs = {}
        for plan in plans:
            key = self.key(plan)
            keys.append(key)
            if key in self._known or key in jobs:
                continue
            found = None if self._store is None else self._store.get(key)
            if found is None:
                jobs[key] = {"plan": plan_to_json(plan)}
            else:
                self._known[key] = found
                self.remembered += 1
        self._announced += len(jobs)
        self._tell()
        for key, document in self._runner.run(jobs):
            if document is None:
                self._known[key] = Measured(
                    refused=f"its process died {MOST_ATTEMPTS} times, probably for lack of memory"
                )
            else:
                self._known[key] = Measured.from_json(document)
                if self._store is not None:
                    self._store.put(key, self._known[key])
            self.measured += 1
            self._tell()
        return [self._known[key] for key in keys]

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.remembered + self.measured, self.remembered + self._announced)
