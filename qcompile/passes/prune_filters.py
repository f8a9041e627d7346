"""Magnitude pruning that removes whole filters, and everything that belongs to them."""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.remove_channels import remove_channels
from qcompile.types import Array

_Filters = Conv | ConvTranspose | MatMul


class PruneMethod(enum.Enum):
    """The magnitude of a filter: mean of |w|, or root of the mean of w * w."""

    L1 = "l1"
    L2 = "l2"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Channels that go together, the filters among them, and their score (small goes first)."""

    channels: frozenset[Channel]
    filters: tuple[tuple[str, int], ...]
    score: float


@dataclass(frozen=True, slots=True)
class PruneFilters:
    """Removes the filters of smallest magnitude from the network.

    Before, `ratio` 0.5::

        %t: f32[1,16,64,64] = Conv 'a'(%x, @w: [16,3,3,3]) activation=relu
        %y: f32[1,8,64,64] = Conv 'b'(%t, @v: [8,16,3,3])

    After::

        %t: f32[1,8,64,64] = Conv 'a'(%x, @w': [8,3,3,3]) activation=relu
        %y: f32[1,8,64,64] = Conv 'b'(%t, @v': [8,8,3,3])

    The result equals the network whose readers ignore the removed channels; nothing is masked.
    Channels tied by Add, Concat, depthwise filters and so on go together (`channel_classes`).
    The score of a class is the mean magnitude of its filters, relative to the mean of the layers it
    belongs to, so that one ratio compares layers of different scale. Run it after `FoldAffine`,
    when the weights contain the batch norms.

    Attributes:
        ratio: share of the removable filters to remove, 0 <= ratio < 1.
        method: the magnitude.
        per_layer: take the ratio of each layer (or group of tied layers) instead of all together.
        multiple: every pruned layer keeps a multiple of this many filters.
        exclude: shell patterns of operator names that keep all their filters.
    """

    name: ClassVar[str] = "prune-filters"

    ratio: float
    method: PruneMethod = PruneMethod.L1
    per_layer: bool = False
    multiple: int = 1
    exclude: tuple[str, ...] = ()

    def run(self, graph: Graph) -> Graph:
        """The smaller graph.

        Raises:
            UsageError: ratio or multiple are out of range.
        """
        if not 0 <= self.ratio < 1:
            raise UsageError(f"prune ratio {self.ratio:g} is not in the range 0 <= ratio < 1")
        if self.multiple < 1:
            raise UsageError(f"prune multiple {self.multiple} is not positive")
        candidates = self._candidates(graph)
        chosen = self._choose(graph, candidates)
        removed = frozenset(channel for item in chosen for channel in item.channels)
        return remove_channels(graph, removed) if removed else graph

    def _candidates(self, graph: Graph) -> list[_Candidate]:
        kept = [
            op.output
            for op in graph.ops
            if any(fnmatchcase(op.name, pattern) for pattern in self.exclude)
        ]
        magnitudes = {
            op.output: self._magnitudes(graph, op)
            for op in graph.ops
            if isinstance(op, _Filters) and (graph.types[op.output].rank == 2 or _is_conv(op))
        }
        classes = []
        for channels in channel_classes(graph, kept).removable:
            filters = tuple(sorted(channel for channel in channels if channel[0] in magnitudes))
            if filters:
                score = float(np.mean([magnitudes[name][index] for name, index in filters]))
                classes.append(_Candidate(channels, filters, score))
        return _relative(classes)

    def _magnitudes(self, graph: Graph, op: _Filters) -> Array:
        """One magnitude for each output channel, with the gain that the activation applies."""
        weights = graph.constants[op.inputs[1]].astype("float64")
        if isinstance(op, ConvTranspose):
            split = weights.reshape(op.groups, -1, *weights.shape[1:])
            rows = np.moveaxis(split, 2, 1).reshape(op.groups * weights.shape[1], -1)
        else:
            rows = (weights.T if isinstance(op, MatMul) else weights).reshape(
                graph.types[op.output].shape[1], -1
            )
        if self.method is PruneMethod.L1:
            values = np.abs(rows).mean(1)
        else:
            values = np.sqrt(np.square(rows).mean(1))
        return np.asarray(values * np.abs(np.array(op.activation.gain)))

    def _choose(self, graph: Graph, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        if self.per_layer:
            pools = _by_layers(candidates).values()
        else:
            pools = {(): list(candidates)}.values()
        counts = {
            name: graph.types[name].shape[1]
            for name in graph.activations()
            if graph.types[name].rank > 1
        }
        left = dict(counts)
        chosen: list[_Candidate] = []
        for pool in pools:
            budget = math.floor(self.ratio * len(pool))
            for item in sorted(pool, key=lambda item: (item.score, item.filters)):
                if budget == 0:
                    break
                if _remove(left, item):
                    chosen.append(item)
                    budget -= 1
        return self._rounded(chosen, counts, left)

    def _rounded(
        self, chosen: list[_Candidate], counts: Mapping[str, int], left: dict[str, int]
    ) -> list[_Candidate]:
        """Gives back the best filters until every pruned layer keeps a multiple."""
        best_first = sorted(chosen, key=lambda item: (item.score, item.filters), reverse=True)
        kept = list(best_first)
        while self.multiple > 1:
            odd = {
                name
                for item in kept
                for name, _ in item.filters
                if left[name] % self.multiple and left[name] < counts[name]
            }
            back = next(
                (item for item in kept if any(name in odd for name, _ in item.filters)), None
            )
            if back is None:
                break
            kept.remove(back)
            for name, _ in back.channels:
                left[name] += 1
        return kept


def _is_conv(op: _Filters) -> bool:
    return isinstance(op, (Conv, ConvTranspose))


def _by_layers(candidates: Sequence[_Candidate]) -> dict[tuple[str, ...], list[_Candidate]]:
    """Candidates by the set of values whose filters they hold."""
    pools: dict[tuple[str, ...], list[_Candidate]] = defaultdict(list)
    for item in candidates:
        pools[tuple(sorted({name for name, _ in item.filters}))].append(item)
    return pools


def _relative(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Scores divided by the mean score of their layers."""
    result = []
    for pool in _by_layers(candidates).values():
        mean = float(np.mean([item.score for item in pool])) or 1.0
        result += [_Candidate(item.channels, item.filters, item.score / mean) for item in pool]
    return result


def _remove(left: dict[str, int], item: _Candidate) -> bool:
    """Takes the candidate out of the counts, unless some value would lose its last channel."""
    wanted: dict[str, int] = defaultdict(int)
    for name, _ in item.channels:
        wanted[name] += 1
    if any(left[name] <= count for name, count in wanted.items()):
        return False
    for name, count in wanted.items():
        left[name] -= count
    return True
