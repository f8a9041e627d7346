"""The search for widths: uniform plans and mixed ones are tried, and the best that fits is kept.

1. Every uniform plan is measured; the widest and the narrowest tell how costs follow from widths.
2. Greed deals out the bits within the budgets, in a few variants, and at steps of the trade-off.
3. What came out over a budget is tightened; a limit on Dice is closed in on.
4. Of all that keeps the budgets the best is chosen (or, with a limit on Dice alone, the smallest).

All uniform plans are among the candidates, so the choice is never worse than a uniform plan of its
cost, by the measure it is judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qcompile.errors import GateError, QCompileError
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.plan import Plan
from qcompile.prune_options import parse_amount
from qcompile.search.choices import reweighted
from qcompile.search.cost import LayerSum, layers_of, weight_bits
from qcompile.search.evaluator import Evaluator
from qcompile.search.found import Candidate, Found, Tried
from qcompile.search.greedy import Choice, Limit, Part, Slot, Widths, widest, within
from qcompile.search.measured import Measured
from qcompile.search.metrics import METRICS, Metric, budgeted_metrics, leading_metric
from qcompile.search.slots import uniform_plan, widths_of, widths_plan

PAIRS = ((8, 8), (6, 6), (4, 6), (4, 4), (3, 4), (2, 6), (2, 4), (2, 3))
"""Uniform widths of weights and activations that are tried where both are free."""
VARIANTS = ((1.0, 1.0), (0.5, 1.0), (1.0, 4.0), (1.0, 0.25))
"""Powers of errors, and factors of those of activations: none is the best for every network."""
LEVELS = 5
"""Steps of the trade-off between the narrowest and the widest plan."""
CORRECTIONS = 3
REFINEMENTS = 2
MARGIN = 0.995


class WidthSearch:
    """One search over one graph."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        options: CompileOptions,
        choices: Sequence[Choice],
        evaluator: Evaluator,
        parallel: int = 2,
    ) -> None:
        """
        Args:
            graph: the float graph.
            plan: the widest plan.
            options: the budgets.
            choices: the slots.
            evaluator: measures.
            parallel: how many candidates are measured at once.
        """
        self.graph = graph
        self.options = options
        self.choices = choices
        self.evaluator = evaluator
        self.parallel = parallel
        self.slots = {choice.slot: None for choice in choices}
        self.layers = layers_of(graph, plan, frozenset(self.slots))
        self.leading = leading_metric(options)
        self.tried: dict[str, Tried] = {}

    def run(self) -> Found:
        """
        Raises:
            QCompileError: a size budget is out of reach.
            GateError: no plan keeps the limit on Dice.
        """
        uniform = self._try(self._uniform(pair) for pair in self._pairs())
        largest, smallest = uniform[0], uniform[-1]
        self._check_usable(uniform)
        budgets = self._budgets(largest.result)
        sizes = [metric for metric in METRICS if metric.name in budgets]
        if sizes:
            limits = {metric: self._limit(metric, largest, smallest, budgets) for metric in sizes}
            self._fit(limits, budgets)
        else:
            self._close_in(self._limit(self.leading, largest, smallest, {}))
        return self._found(budgets)

    def _pairs(self) -> list[tuple[int, int | None]]:
        most = int(self.options.wbits)
        if not any(part is Part.OUTPUT for _, part in self.slots):
            return [(bits, None) for bits in range(most, 1, -1)]
        wide = int(self.options.abits)
        pairs = [(most, wide), *((min(w, most), min(a, wide)) for w, a in PAIRS)]
        return list(dict.fromkeys(pairs))

    def _uniform(self, pair: tuple[int, int | None]) -> Candidate:
        wbits, abits = pair
        plan = uniform_plan(self.graph, self.options, wbits, abits)
        label = f"uniform {wbits}/{self.options.abits if abits is None else abits}"
        return Candidate(label, plan, widths_of(plan, self.slots), mixed=False)

    def _mixed(self, widths: Widths) -> Candidate:
        count = max(1, sum(layer.weights for layer in self.layers))
        mean = LayerSum(self.layers, weight_bits).total(widths) / count
        outputs = [bits for (_, part), bits in widths.items() if part is Part.OUTPUT]
        abits = f"{sum(outputs) / len(outputs):.1f}" if outputs else self.options.abits
        plan = widths_plan(self.graph, self.options, widths)
        return Candidate(f"mixed {mean:.2f}/{abits}", plan, dict(widths), mixed=True)

    def _try(self, candidates: Iterable[Candidate]) -> list[Tried]:
        """Measures candidates, and keeps those that are new."""
        listed = list(candidates)
        results = self.evaluator.measure([candidate.plan for candidate in listed])
        found = []
        for candidate, result in zip(listed, results, strict=True):
            key = self.evaluator.key(candidate.plan)
            self.tried.setdefault(key, Tried(candidate, result))
            found.append(self.tried[key])
        return found

    def _check_usable(self, uniform: Sequence[Tried]) -> None:
        refused = [tried.result.refused for tried in uniform if tried.result.refused]
        if len(refused) == len(uniform):
            raise QCompileError(refused[-1])

    def _budgets(self, largest: Measured) -> dict[str, float]:
        """Absolute budgets of the metrics that have one."""
        found = {}
        for metric in budgeted_metrics(self.options):
            amount = parse_amount(getattr(self.options, metric.option), metric.option)
            whole = metric.of(largest)
            if amount.relative and whole is None:
                whole = max(metric.of(tried.result) or 0 for tried in self.tried.values())
            found[metric.name] = float(amount.of(int(whole or 0)))
        return found

    def _limit(
        self, metric: Metric, largest: Tried, smallest: Tried, budgets: Mapping[str, float]
    ) -> Limit | None:
        """A budget as greed knows it; None where no width matters to it."""
        if metric.term is None:
            return None
        cost = LayerSum(self.layers, metric.term)
        usable = [t for t in (largest, smallest) if not t.result.refused]
        ends = [(cost.total(t.candidate.widths), metric.of(t.result) or 0.0) for t in usable]
        most = budgets.get(metric.name, max(value for _, value in ends) if ends else 0.0)
        if len(ends) < 2 or ends[0][0] <= ends[1][0] or ends[0][1] <= ends[1][1]:
            return Limit(cost, most)
        factor = (ends[0][1] - ends[1][1]) / (ends[0][0] - ends[1][0])
        return Limit(cost, most, ends[0][1] - factor * ends[0][0], factor)

    def _fit(self, limits: Mapping[Metric, Limit | None], budgets: Mapping[str, float]) -> None:
        """Tries what greed finds within the budgets, each variant tightened until it fits."""
        known = {metric: limit for metric, limit in limits.items() if limit is not None}
        outputs = any(part is Part.OUTPUT for _, part in self.slots)
        choices = self._affordable(budgets)
        tight = {variant: dict(known) for variant in VARIANTS if outputs or variant[1] == 1.0}
        extra = [*self._curve(limits), *self._largest_uniform(known)]
        for _ in range(CORRECTIONS):
            candidates = {}
            for variant, own in tight.items():
                widths = within(reweighted(choices, *variant), list(own.values()))
                if widths is not None:
                    candidates[variant] = self._mixed(widths)
            tried = self._try([*candidates.values(), *extra])
            extra = []
            tight = {
                variant: self._tightened(tight[variant], item.result, budgets)
                for variant, item in zip(candidates, tried, strict=False)
                if not item.result.refused and not self._fits(item.result, budgets)
            }
            if not tight:
                return

    @staticmethod
    def _tightened(
        limits: Mapping[Metric, Limit], result: Measured, budgets: Mapping[str, float]
    ) -> dict[Metric, Limit]:
        """Limits that make up for what a result is over its budgets."""
        found = dict(limits)
        for metric, limit in limits.items():
            over = (metric.of(result) or 0.0) / budgets[metric.name]
            if over > 1:
                found[metric] = replace(limit, most=limit.most / over * MARGIN)
        return found

    def _affordable(self, budgets: Mapping[str, float]) -> Sequence[Choice]:
        """Without widths above 8 bits where the arena has no room for them."""
        arena = [t.result.arena for t in self.tried.values() if t.result.arena is not None]
        if not arena or max(arena) <= budgets.get("arena", max(arena)):
            return self.choices
        return [
            replace(choice, errors={b: e for b, e in choice.errors.items() if b <= 8})
            for choice in self.choices
        ]

    def _largest_uniform(self, limits: Mapping[Metric, Limit]) -> list[Candidate]:
        """The uniform plans within the limits that no other one exceeds in both widths."""
        if not any(part is Part.OUTPUT for _, part in self.slots):
            return []  # all were tried
        most, wide = int(self.options.wbits), min(8, int(self.options.abits))
        fitting = [
            (wbits, abits)
            for wbits in range(2, most + 1)
            for abits in range(3, wide + 1)
            if all(
                limit.room(self._uniform((wbits, abits)).widths) >= 0 for limit in limits.values()
            )
        ]
        return [
            self._uniform((wbits, abits))
            for wbits, abits in fitting
            if not any(w >= wbits and a >= abits and (w, a) != (wbits, abits) for w, a in fitting)
        ]

    def _curve(self, limits: Mapping[Metric, Limit | None]) -> list[Candidate]:
        """Mixed plans at steps of the leading cost, whatever the budgets."""
        limit = limits.get(self.leading)
        return [] if limit is None else self._steps(limit, None, None, LEVELS)

    def _steps(
        self, limit: Limit, low: Widths | None, high: Widths | None, count: int
    ) -> list[Candidate]:
        """`count` mixed plans between two of them, at equal ratios of the leading cost."""
        top = limit.cost.total(high if high is not None else widest(self.choices))
        least: dict[Slot, int] = {choice.slot: min(choice.errors) for choice in self.choices}
        bottom = limit.cost.total(low if low is not None else least)
        found = []
        for index in range(1, count + 1):
            level = bottom * (top / max(bottom, 1e-9)) ** (index / (count + 1))
            widths = within(self.choices, [Limit(limit.cost, level)])
            if widths is not None:
                found.append(self._mixed(widths))
        return found

    def _close_in(self, limit: Limit | None) -> None:
        """Looks for the smallest plan that keeps the limit on Dice."""
        assert limit is not None
        self._try(self._steps(limit, None, None, max(LEVELS, self.parallel)))
        for _ in range(REFINEMENTS):
            keeping = [t for t in self.tried.values() if self._keeps(t.result, {})]
            if not keeping:
                return
            best = min(keeping, key=lambda t: self._size(t.result))
            worse = [
                t
                for t in self.tried.values()
                if t.candidate.mixed and self._size(t.result) < self._size(best.result)
            ]
            low = max(worse, key=lambda t: self._size(t.result), default=None)
            below = None if low is None else low.candidate.widths
            steps = self._steps(limit, below, best.candidate.widths, max(2, self.parallel))
            if not self._try(steps):
                return

    def _size(self, result: Measured) -> float:
        return self.leading.of(result) or 0.0

    def _keeps(self, result: Measured, budgets: Mapping[str, float]) -> bool:
        """Whether a result is within all budgets, and loses no more Dice than it may."""
        drop, most = result.drop, self.options.max_dice_drop
        return self._fits(result, budgets) and (most is None or (drop is not None and drop <= most))

    def _fits(self, result: Measured, budgets: Mapping[str, float]) -> bool:
        if result.refused:
            return False
        values = {metric.name: metric.of(result) for metric in METRICS}
        return all((values[name] or 0.0) <= most for name, most in budgets.items())

    def _found(self, budgets: Mapping[str, float]) -> Found:
        tried = list(self.tried.values())
        fitting = [item for item in tried if self._fits(item.result, budgets)]
        if not fitting:
            raise QCompileError(self._too_small(tried, budgets))
        keeping = [item for item in fitting if self._keeps(item.result, budgets)]
        if not keeping:
            best = max(fitting, key=lambda item: item.result.quality)
            raise GateError(
                f"no plan keeps --max-dice-drop {self.options.max_dice_drop:g}: the best of "
                f"{len(fitting)} ({best.candidate.label}) loses {best.result.drop}; allow more, "
                f"or give more or better --calib images or larger budgets"
            )
        if budgets:
            chosen = max(keeping, key=lambda t: (*t.result.quality, -self._size(t.result)))
        else:
            chosen = min(keeping, key=lambda t: (self._size(t.result), _negated(t.result)))
        return Found(
            chosen,
            tried,
            self.choices,
            self.leading,
            dict(budgets),
            self.options.max_dice_drop,
            self.evaluator.measured,
            self.evaluator.remembered,
        )

    def _too_small(self, tried: Sequence[Tried], budgets: Mapping[str, float]) -> str:
        """Which budget is out of reach, and what can be had."""
        usable = [item for item in tried if not item.result.refused]
        for metric in METRICS:
            if metric.name not in budgets or not usable:
                continue
            least = min(metric.of(item.result) or 0.0 for item in usable)
            if least > budgets[metric.name]:
                flag = f"--{metric.option.replace('_', '-')}"
                return (
                    f"{flag} {budgets[metric.name]:.0f}: out of reach, the narrowest plan needs "
                    f"{least:.0f} {metric.unit}; allow more, or use --prune, a smaller "
                    f"--input-shape or a lower --first-last-bits"
                )
        if not usable:
            return tried[-1].result.refused
        return "the budgets are out of reach together; allow more of one of them"


def _negated(result: Measured) -> tuple[float, float]:
    dice, sqnr = result.quality
    return -dice, -sqnr
