"""Pruning that removes whole filters, and everything that belongs to them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.filter_importance import Importance, Magnitude, is_filtering
from qcompile.passes.masked_constants import masked_constants
from qcompile.passes.prune_costs import PruneCosts
from qcompile.passes.remove_channels import ALL_ZERO, remove_channels
from qcompile.prune_options import Amount, PruneConstants, PruneScope

LEAST_SAVING = 1e-9
"""Share of the costs: what saves less is as good as free."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Channels that go together, the filters among them, and their score (small goes first)."""

    channels: frozenset[Channel]
    filters: tuple[Channel, ...]
    score: float


@dataclass(frozen=True, slots=True)
class PruneFilters:
    """Removes the filters that matter least from the network.

    Before, `ratio` 0.5::

        %t: f32[1,16,64,64] = Conv 'a'(%x, @w: [16,3,3,3]) activation=relu
        %y: f32[1,8,64,64] = Conv 'b'(%t, @v: [8,16,3,3])

    After::

        %t: f32[1,8,64,64] = Conv 'a'(%x, @w': [8,3,3,3]) activation=relu
        %y: f32[1,8,64,64] = Conv 'b'(%t, @v': [8,8,3,3])

    The result equals the network with masked filters (`masked_constants`); nothing is masked.
    Channels tied by Add, Concat, depthwise filters and so on go together (`channel_classes`) and
    share the mean score of their filters.

    Attributes:
        ratio: share of the removable filters to remove, 0 <= ratio < 1.
        importance: tells what goes first.
        scope: one ratio for all filters together, or for each layer (or group of tied layers).
        multiple: every pruned layer keeps a multiple of this many filters.
        exclude: shell patterns of operator names that keep all their filters.
        constants: what becomes of the constants that biases of removed filters leave.
        flops: the ratio rises until the network has at most these. With a budget, what matters
            least for the share of it that it saves goes first.
        bytes: the ratio rises until its weights have at most these.
        weight_bits: operator name -> bits of its weights, for `bytes`; 32 where it has none.
    """

    name: ClassVar[str] = "prune-filters"

    ratio: float
    importance: Importance = field(default_factory=Magnitude)
    scope: PruneScope = PruneScope.GLOBAL
    multiple: int = 1
    exclude: tuple[str, ...] = ()
    constants: PruneConstants = PruneConstants.FOLD
    flops: Amount | None = None
    bytes: Amount | None = None
    weight_bits: Mapping[str, int] = field(default_factory=dict)

    def run(self, graph: Graph) -> Graph:
        """The smaller graph.

        Raises:
            UsageError: ratio or multiple are out of range, a pattern matches nothing, scores do not
                fit the network, or a budget is below what is left when all has gone that can.
        """
        if not 0 <= self.ratio < 1:
            raise UsageError(f"prune ratio {self.ratio:g} is not in the range 0 <= ratio < 1")
        if self.multiple < 1:
            raise UsageError(f"prune multiple {self.multiple} is not positive")
        chosen = self.choose(graph)
        if not chosen:
            return graph
        classes = [item.channels for item in chosen]
        folds = self.constants is PruneConstants.FOLD
        constants = masked_constants(graph, classes) if folds else ALL_ZERO
        return remove_channels(graph, frozenset().union(*classes), constants)

    def choose(self, graph: Graph) -> list[Candidate]:
        """What goes."""
        candidates = self._candidates(graph)
        chosen = self._take(graph, candidates, self.ratio)
        limits = self._limits(graph)
        if not limits or _fits(graph, chosen, limits):
            return chosen
        # Rounding to multiples makes costs almost, but not quite, fall with the ratio: halve the
        # interval first, then go on step by step.
        steps = max(1, len(candidates))
        low, high = math.floor(self.ratio * steps), steps
        while low + 1 < high:
            middle = (low + high) // 2
            if _fits(graph, self._take(graph, candidates, middle / steps), limits):
                high = middle
            else:
                low = middle
        for step in range(high, steps + 1):
            chosen = self._take(graph, candidates, step / steps)
            if _fits(graph, chosen, limits):
                return chosen
        raise UsageError(_unreachable(graph, chosen, limits))

    def _limits(self, graph: Graph) -> list[_Limit]:
        costs = PruneCosts(graph, self.weight_bits)
        limits = []
        for flag, cost, unit, amount in (
            ("--prune-flops", costs.flops, "FLOPs", self.flops),
            ("--prune-bytes", costs.bytes, "bytes", self.bytes),
        ):
            if amount is not None:
                limits.append(_Limit(flag, cost, unit, amount.of(cost({}))))
        return limits

    def _candidates(self, graph: Graph) -> list[Candidate]:
        names = [op.name for op in graph.ops]
        for pattern in self.exclude:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(
                    f"--prune-exclude: '{pattern}' matches no operator of the simplified network; "
                    f"use a name of the report, or a pattern such as '{names[0]}'"
                )
        kept = [
            op.output
            for op in graph.ops
            if any(fnmatchcase(op.name, pattern) for pattern in self.exclude)
        ]
        scores = self.importance.scores(graph)
        filtering = {op.output for op in graph.ops if is_filtering(graph, op)}
        found = []
        for channels in channel_classes(graph, kept).removable:
            filters = tuple(sorted(channel for channel in channels if channel[0] in filtering))
            known = [scores[channel] for channel in filters if channel in scores]
            if known:
                found.append(Candidate(channels, filters, float(np.mean(known))))
        if self.importance.is_relative:
            found = _relative(found)
        limits = self._limits(graph)
        return _by_saving(graph, found, limits) if limits else found

    def _take(self, graph: Graph, candidates: Sequence[Candidate], ratio: float) -> list[Candidate]:
        """What goes at one ratio."""
        if self.scope is PruneScope.LAYER:
            pools = list(_by_layers(candidates).values())
        else:
            pools = [list(candidates)]
        left = _counts(graph)
        chosen: list[Candidate] = []
        for pool in pools:
            budget = math.floor(ratio * len(pool) + 1e-9)
            for item in sorted(pool, key=lambda item: (item.score, item.filters)):
                if budget == 0:
                    break
                if _remove(left, item):
                    chosen.append(item)
                    budget -= 1
        return self._rounded(chosen, _counts(graph), left)

    def _rounded(
        self, chosen: list[Candidate], counts: Mapping[str, int], left: dict[str, int]
    ) -> list[Candidate]:
        """Gives back the best filters until every pruned layer keeps a multiple."""
        kept = sorted(chosen, key=lambda item: (item.score, item.filters), reverse=True)
        while self.multiple > 1:
            still = []
            for item in kept:
                odd = any(
                    left[name] % self.multiple and left[name] < counts[name]
                    for name, _ in item.filters
                )
                if odd:
                    for name, _ in item.channels:
                        left[name] += 1
                else:
                    still.append(item)
            if len(still) == len(kept):
                break
            kept = still
        return kept


@dataclass(frozen=True, slots=True)
class _Limit:
    """A budget of the network: `cost` of the channels left is at most `most`."""

    flag: str
    cost: Callable[[Mapping[str, int]], int]
    unit: str
    most: int


def _left(graph: Graph, chosen: Sequence[Candidate]) -> dict[str, int]:
    left = _counts(graph)
    for name, count in Counter(name for item in chosen for name, _ in item.channels).items():
        left[name] -= count
    return left


def _fits(graph: Graph, chosen: Sequence[Candidate], limits: Sequence[_Limit]) -> bool:
    left = _left(graph, chosen)
    return all(limit.cost(left) <= limit.most for limit in limits)


def _unreachable(graph: Graph, chosen: Sequence[Candidate], limits: Sequence[_Limit]) -> str:
    left = _left(graph, chosen)
    limit = next(limit for limit in limits if limit.cost(left) > limit.most)
    return (
        f"{limit.flag}: {limit.cost(left)} {limit.unit} are left when all filters have gone that "
        f"can, more than {limit.most}; allow more, exclude fewer layers or use a smaller multiple"
    )


def _counts(graph: Graph) -> dict[str, int]:
    """Channels of every value that has any."""
    return {
        name: graph.types[name].shape[1]
        for name in graph.activations()
        if graph.types[name].rank > 1
    }


def _by_layers(candidates: Sequence[Candidate]) -> dict[tuple[str, ...], list[Candidate]]:
    """Candidates by the set of values whose filters they hold."""
    pools: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for item in candidates:
        pools[tuple(sorted({name for name, _ in item.filters}))].append(item)
    return pools


def _by_saving(
    graph: Graph, candidates: Sequence[Candidate], limits: Sequence[_Limit]
) -> list[Candidate]:
    """Scores divided by the share of the costs that each candidate alone saves.

    Scores below zero, of files, say that a filter does harm: they stay in front as they are.
    """
    wholes = [limit.cost({}) for limit in limits]
    shares: dict[tuple[str, ...], float] = {}
    result = []
    for item in candidates:
        names = tuple(sorted(name for name, _ in item.channels))
        if names not in shares:
            left = _left(graph, [item])
            shares[names] = sum(
                1 - limit.cost(left) / max(1, whole)
                for limit, whole in zip(limits, wholes, strict=True)
            )
        saved = max(shares[names], LEAST_SAVING) if item.score > 0 else 1.0
        result.append(replace(item, score=item.score / saved))
    return result


def _relative(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Scores divided by the mean score of their layers."""
    result = []
    for pool in _by_layers(candidates).values():
        mean = float(np.mean([item.score for item in pool])) or 1.0
        result += [Candidate(item.channels, item.filters, item.score / mean) for item in pool]
    return result


def _remove(left: dict[str, int], item: Candidate) -> bool:
    """Takes the candidate out of the counts, unless some value would lose its last channel."""
    wanted = Counter(name for name, _ in item.channels)
    if any(left[name] <= count for name, count in wanted.items()):
        return False
    for name, count in wanted.items():
        left[name] -= count
    return True
