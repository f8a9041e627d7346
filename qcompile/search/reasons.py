"""Why a search chose what it chose, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.search.found import Found, Tried
from qcompile.search.greedy import Part
from qcompile.search.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one tensor has its width.

    Attributes:
        name: of the operator.
        part: which of its tensors.
        bits: chosen.
        error: relative noise that these bits add to the sums that read the tensor.
        narrower: the same with the next fewer bits; None at the fewest.
    """

    name: str
    part: Part
    bits: int
    error: float
    narrower: float | None


def reasons(found: Found) -> list[Reason]:
    """One for each slot, in order of the network."""
    result = []
    for choice in found.choices:
        bits = found.chosen.candidate.widths[choice.slot]
        below = [width for width in choice.errors if width < bits]
        result.append(
            Reason(
                *choice.slot,
                bits,
                choice.errors[min(choice.errors, key=lambda width: abs(width - bits))],
                choice.errors[max(below)] if below else None,
            )
        )
    return result


def summary(found: Found) -> list[str]:
    """What was chosen, what it was chosen from, and how a uniform plan would have done."""
    chosen = found.chosen
    lines = [f"chosen: {chosen.candidate.label}, {_costs(found, chosen)}; {_worth(chosen)}"]
    fitting = [item for item in found.tried if fits(found, item)]
    rule = "the least cost" if not found.budgets else "the best"
    drop = "" if found.max_drop is None else f" that lose at most {found.max_drop:g} Dice"
    lines.append(
        f"{rule} of {len(fitting)} plans{' within the budgets' if found.budgets else ''}{drop}, "
        f"{len(found.tried)} tried ({found.measured} now, {found.remembered} known from before)"
    )
    rival = _rival(found, [item for item in fitting if not item.candidate.mixed])
    if rival is not None and chosen.candidate.mixed:
        lines.append(
            f"the best uniform plan is {rival.candidate.label}, {_costs(found, rival)}; "
            f"{_worth(rival)}"
        )
    return lines


def fits(found: Found, item: Tried) -> bool:
    """Whether a plan keeps everything that was asked for."""
    result = item.result
    if result.refused:
        return False
    if found.max_drop is not None and (result.drop is None or result.drop > found.max_drop):
        return False
    return all(getattr(result, name) <= most for name, most in found.budgets.items())


def _rival(found: Found, uniform: list[Tried]) -> Tried | None:
    """The uniform plan that would have been chosen."""
    if found.budgets:
        return max(uniform, key=lambda item: item.result.quality, default=None)
    return min(uniform, key=lambda item: found.leading.of(item.result) or 0.0, default=None)


def _costs(found: Found, item: Tried) -> str:
    """'120,000 bytes of at most 125,000'."""
    names = list(found.budgets) or [found.leading.name]
    parts = []
    for metric in METRICS:
        value = metric.of(item.result)
        if metric.name in names and value is not None:
            most = found.budgets.get(metric.name)
            limit = "" if most is None else f" of at most {most:,.0f}"
            parts.append(f"{value:,.0f} {metric.unit}{limit}")
    return ", ".join(parts)


def _worth(item: Tried) -> str:
    result = item.result
    parts = []
    if result.dice is not None and result.dice_float is not None:
        parts.append(f"Dice {result.dice:.4f}, {result.dice - result.dice_float:+.4f}")
    if result.sqnr_db is not None:
        parts.append(f"{result.sqnr_db:.1f} dB at the last layer")
    return ", ".join(parts) or "not comparable with the float network"
