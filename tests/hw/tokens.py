"""A network as tokens: beats move one by one, in any order, without time or values.

What stores beats in hardware stores them here, and nothing else does: a register behind every
stage, the FIFO of each edge, the pixels that a sliding window needs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from qcompile.hw.schedule import Edge, streams
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.stage_timing import port_rules

Action = Callable[[], bool]
"""Does one step if it is possible; whether it did."""


@dataclass
class Wire:
    """The register behind a writer, with the readers that have not had its beat yet."""

    readers: tuple[Edge, ...]
    waiting: set[Edge] = field(default_factory=set)
    sent: int = 0

    def send(self) -> None:
        self.waiting = set(self.readers)
        self.sent += 1


class Tokens:
    """Moves the beats of some frames through a flow with FIFOs of the given depths."""

    def __init__(self, flow: Flow, depths: Mapping[Edge, int], frames: int = 2) -> None:
        self.depths = depths
        self.frames = frames
        self.known = streams(flow)
        self.level: dict[Edge, int] = {}
        self.wires: dict[str, Wire] = {}
        for value in self.known:
            readers = [Edge(value, stage.op.name, port) for stage, port in flow.readers(value)]
            if value in flow.outputs:
                readers.append(Edge(value, "", 0))
            self.wires[value] = Wire(tuple(readers))
            self.level.update(dict.fromkeys(readers, 0))
        self.outputs = flow.outputs
        self.left = {value: 0 for value in flow.outputs}
        self.actions: list[Action] = [self._source(value) for value in flow.inputs]
        for stage in flow.stages:
            self.actions += self._stage(stage)
        self.actions += [self._fill(edge) for edge in self.level if depths[edge]]
        self.actions += [self._sink(value) for value in flow.outputs]

    def offered(self, edge: Edge) -> bool:
        if self.depths[edge]:
            return self.level[edge] > 0
        return edge in self.wires[edge.value].waiting

    def take(self, edge: Edge) -> None:
        if self.depths[edge]:
            self.level[edge] -= 1
        else:
            self.wires[edge.value].waiting.remove(edge)

    def _source(self, value: str) -> Action:
        wire, total = self.wires[value], self.known[value].beats * self.frames

        def step() -> bool:
            if wire.waiting or wire.sent == total:
                return False
            wire.send()
            return True

        return step

    def _fill(self, edge: Edge) -> Action:
        wire = self.wires[edge.value]

        def step() -> bool:
            if edge not in wire.waiting or self.level[edge] == self.depths[edge]:
                return False
            wire.waiting.remove(edge)
            self.level[edge] += 1
            return True

        return step

    def _sink(self, value: str) -> Action:
        edge = Edge(value, "", 0)

        def step() -> bool:
            if not self.offered(edge):
                return False
            self.take(edge)
            self.left[value] += 1
            return True

        return step

    def _stage(self, stage: Stage) -> list[Action]:
        edges = [Edge(value, stage.op.name, port) for port, value in enumerate(stage.values)]
        stored = [rule.freed is not None for rule in port_rules(stage)]
        if len(edges) == 1:
            if stored[0] or stage.output.pixels < self.known[edges[0].value].pixels:
                return self._storing(stage, edges[0])
            return [self._passing(stage, edges)]
        groups = [self.known[edge.value].groups for edge in edges]
        if any(stored):
            return self._gate(stage, edges)
        if stage.output.groups == sum(groups):
            return [self._concat(stage, edges, groups)]
        return [self._passing(stage, edges)]

    def _storing(self, stage: Stage, edge: Edge) -> list[Action]:
        """A window, or a sum of the whole map."""
        rule, wire = port_rules(stage)[0], self.wires[stage.op.output]
        groups, own = self.known[edge.value].groups, stage.output.groups
        needs, waits = rule.needs(self.frames).tolist(), rule.waits(self.frames).tolist()
        taken = 0

        def accept() -> bool:
            nonlocal taken
            if not self.offered(edge) or waits[taken // groups] > wire.sent // own:
                return False
            self.take(edge)
            taken += 1
            return True

        def emit() -> bool:
            pixel = wire.sent // own
            if wire.waiting or pixel == len(needs) or taken < needs[pixel] * groups:
                return False
            wire.send()
            return True

        return [accept, emit]

    def _passing(self, stage: Stage, edges: list[Edge]) -> Action:
        """One beat of every input makes one beat."""
        wire = self.wires[stage.op.output]

        def step() -> bool:
            if wire.waiting or not all(self.offered(edge) for edge in edges):
                return False
            for edge in edges:
                self.take(edge)
            wire.send()
            return True

        return step

    def _concat(self, stage: Stage, edges: list[Edge], groups: list[int]) -> Action:
        wire = self.wires[stage.op.output]
        turns = [edge for edge, count in zip(edges, groups, strict=True) for _ in range(count)]

        def step() -> bool:
            edge = turns[wire.sent % len(turns)]
            if wire.waiting or not self.offered(edge):
                return False
            self.take(edge)
            wire.send()
            return True

        return step

    def _gate(self, stage: Stage, edges: list[Edge]) -> list[Action]:
        """A product with a pixel that is held for a whole frame."""
        wire, (full, single) = self.wires[stage.op.output], edges
        groups, beats = self.known[single.value].groups, stage.output.beats
        held = 0

        def accept() -> bool:
            nonlocal held
            if not self.offered(single) or held // groups > wire.sent // beats:
                return False
            self.take(single)
            held += 1
            return True

        def emit() -> bool:
            ready = held >= (wire.sent // beats + 1) * groups
            if wire.waiting or not ready or not self.offered(full):
                return False
            self.take(full)
            wire.send()
            return True

        return [accept, emit]

    def run(self, order: str, seed: int = 0) -> bool:
        """Whether everything arrives.

        Args:
            order: 'eager' (writers first), 'lazy' (readers first: nothing moves before all behind
                it has come to rest) or 'random'.
        """
        rng = Random(seed)
        actions = list(self.actions)
        if order == "lazy":
            actions.reverse()
        moved = True
        while moved:
            moved = False
            if order == "random":
                rng.shuffle(actions)
            for action in actions:
                if action():
                    moved = True
                    if order == "lazy":
                        break
                    while order == "eager" and action():
                        pass
        return all(
            count == self.frames * self.known[value].beats for value, count in self.left.items()
        )
