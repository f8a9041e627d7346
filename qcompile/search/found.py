"""What a search tried, and what it chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qcompile.plan import Plan
from qcompile.search.greedy import Choice, Widths
from qcompile.search.measured import Measured
from qcompile.search.metrics import Metric


@dataclass(frozen=True)
class Candidate:
    """A plan with a name for people.

    Attributes:
        label: 'uniform 4/6', or 'mixed 3.2/8'.
        plan: formats of all tensors.
        widths: of the slots that were free.
        mixed: whether greed chose them.
    """

    label: str
    plan: Plan
    widths: Widths
    mixed: bool


@dataclass(frozen=True)
class Tried:
    """A candidate with what came out."""

    candidate: Candidate
    result: Measured


@dataclass(frozen=True)
class Found:
    """A finished search.

    Attributes:
        chosen: one of `tried`.
        tried: all candidates, each plan once.
        choices: the slots and the errors that widths were dealt out by.
        leading: what the trade-off is drawn over.
        budgets: metric name -> the most it may be.
        max_drop: the most Dice that may be lost.
        measured, remembered: candidates run now, and known from before.
    """

    chosen: Tried
    tried: Sequence[Tried]
    choices: Sequence[Choice]
    leading: Metric
    budgets: Mapping[str, float] = field(default_factory=dict)
    max_drop: float | None = None
    measured: int = 0
    remembered: int = 0

    @property
    def judged_by_dice(self) -> bool:
        """Whether Dice decided, or the SQNR of the last layer."""
        return self.chosen.result.dice is not None
