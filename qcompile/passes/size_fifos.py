"""How deep the FIFO on each edge of a streaming network must be: proven, not guessed.

A network of stages with bounded buffers is a Kahn network in both directions (a stage waits for
data, and for room), so whether it stops for ever does not depend on any timing or stall pattern.
It stops if and only if the pixels depend on each other in a cycle, through two kinds of rule:

* data: output pixel n of a stage needs `demand[n]` pixels of each input;
* room: a value's first p pixels can only leave if every reader takes them (a fork stores nothing).
  A reader whose FIFO holds c pixels takes the others, p - c, only when it has emitted so many
  outputs that its own store has room: that of a sliding window is what it needs at once
  (`RasterWalk`), that of any other block nothing, so that every output must have left that p - c
  pixels suffice for.

A stage with one input needs no FIFO: room leads downstream, data upstream, and turning round
inside such a stage demands no pixel that had not left already. A cycle therefore enters some
stage with several inputs by room at one port and leaves it by data at another one. Stages with
several inputs are sized in topological order. For output pixel n of such a stage r, the least
fixed point of all rules, those of the ports already sized included, says how many pixels of each
value *must* have left before the pixel can: what pixels 0 .. n - 1 need, and what pixel n needs at
the other ports. At port k the FIFO must hold the excess over what r has taken by then:

    minimum[k] = max over n of (pixels of value k that must have left - pixels taken before n)

With less, that chain of rules is a cycle through pixel n, whatever the later FIFOs are: deadlock.
With this much at every port, no cycle is left: follow one to the last of its stages that is
entered by room; the rules from there on are those of the fixed point, which holds. Graph outputs
take whatever comes, ports of later stages count as unbounded until their turn. Two frames back to
back are looked at; the rules repeat from the second frame on.

Pixels are atoms here. The bound is exact up to what lies inside a pixel and inside blocks: one beat
that a fork may still offer, and what the windows and pipelines of the branch before the FIFO hold
beyond their needs (none in a plain skip), a few pixels; behind an up-sampling these can be a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from qcompile.hdl_options import FifoPolicy
from qcompile.hw.concat import Concat
from qcompile.hw.schedule import Edge, Schedule, edges, late_schedule, schedule, streams
from qcompile.hw.stage import Flow, Stage
from qcompile.hw.stage_timing import PortRule, port_rules
from qcompile.hw.streams import TensorStream
from qcompile.types import Array

FRAMES = 2


@dataclass(frozen=True, slots=True)
class FifoSize:
    """A FIFO of `depth` beats: at least `minimum`, the proven bound, and `margin`.

    The margin is one pixel, less than a row; where the bound is 0 there is neither.
    """

    minimum: int
    margin: int
    depth: int


@dataclass(frozen=True)
class FifoPlan:
    """The FIFO of every edge, in beats of the value as written (behind the fork).

    Attributes:
        sizes: every edge of the flow; depth 0 is a plain connection.
        bits: memory of all of them.
    """

    sizes: Mapping[Edge, FifoSize]
    bits: int


@dataclass(frozen=True)
class _Port:
    """Both kinds of rule at one input port, over all frames, as tables over counts of pixels.

    Attributes:
        needs: [outputs + 1] pixels that must have arrived for so many outputs.
        forces: [inputs + 1] outputs that must leave before so many pixels are taken.
    """

    needs: Array
    forces: Array

    @property
    def taken(self) -> Array:
        """[outputs] pixels taken for sure when so many outputs have left and no more can."""
        outputs = np.arange(self.needs.size - 1)
        return np.searchsorted(self.forces, outputs, side="right") - 1


def _port(rule: PortRule) -> _Port:
    """The tables of one port."""
    needs = rule.needs(FRAMES)
    if rule.freed is None:
        # It stores nothing: taking the last pixel that an output needs lets that output out.
        counts = np.arange(1, FRAMES * rule.pixels + 1)
        forces = np.searchsorted(needs, counts, side="right")
    else:
        forces = rule.waits(FRAMES)
    zero = np.zeros(1, dtype=np.int32)
    return _Port(
        np.concatenate([zero, needs.astype(np.int32)]),
        np.concatenate([zero, forces.astype(np.int32)]),
    )


def _raise(counts: dict[str, Array], value: str, least: Array) -> bool:
    """Makes `counts[value]` at least `least`; whether that changed it."""
    old = counts.get(value)
    if old is None:
        counts[value] = least
        return bool(least.any())
    if not (least > old).any():
        return False
    counts[value] = np.maximum(old, least)
    return True


def _close(
    counts: dict[str, Array],
    stages: tuple[Stage, ...],
    ports: Mapping[Edge, _Port],
    held: Mapping[Edge, int],
) -> None:
    """Raises `counts` to the least fixed point of the rules of `stages`."""
    while True:
        for stage in reversed(stages):
            if stage.op.output in counts:
                done = counts[stage.op.output]
                for index, value in enumerate(stage.values):
                    edge = Edge(value, stage.op.name, index)
                    _raise(counts, value, ports[edge].needs[done])
        again = False
        for stage in stages:
            for index, value in enumerate(stage.values):
                edge = Edge(value, stage.op.name, index)
                if value in counts:
                    beyond = np.maximum(counts[value] - held[edge], 0)
                    changed = _raise(counts, stage.op.output, ports[edge].forces[beyond])
                    # One input: what is forced needs nothing that had not arrived already.
                    again |= changed and len(stage.values) > 1
        if not again:
            return


def minimum_pixels(flow: Flow) -> Mapping[Edge, int]:
    """The least pixels that the FIFO of each edge must hold for the network never to stop."""
    ports = {
        Edge(value, stage.op.name, index): _port(rule)
        for stage in flow.stages
        for index, (value, rule) in enumerate(zip(stage.values, port_rules(stage), strict=True))
    }
    held = dict.fromkeys(edges(flow), 0)
    for position, stage in enumerate(flow.stages):
        if len(stage.values) < 2:
            continue
        own = [Edge(value, stage.op.name, index) for index, value in enumerate(stage.values)]
        found = []
        for edge in own:
            counts: dict[str, Array] = {}
            for other in own:
                needs = ports[other].needs
                _raise(counts, other.value, needs[:-1] if other == edge else needs[1:])
            _close(counts, flow.stages[:position], ports, held)
            excess = counts[edge.value] - ports[edge].taken
            found.append(max(0, int(excess.max())))
        held.update(zip(own, found, strict=True))
    return held


@dataclass(frozen=True, slots=True)
class SizeFifos:
    """Chooses the depth of every FIFO."""

    policy: FifoPolicy = FifoPolicy.RATE

    def run(self, flow: Flow) -> FifoPlan:
        """The FIFOs of a flow whose foldings are chosen."""
        known = streams(flow)
        least = {
            edge: _size(known[edge.value], pixels) for edge, pixels in minimum_pixels(flow).items()
        }
        sizes = least if self.policy is FifoPolicy.MINIMUM else _at_full_rate(flow, least)
        bits = sum(size.depth * known[edge.value].beat_bits for edge, size in sizes.items())
        return FifoPlan(sizes, bits)


def _size(stream: TensorStream, pixels: int) -> FifoSize:
    beats = pixels * stream.groups
    margin = min(stream.groups, stream.width * stream.groups - 1) if beats else 0
    return FifoSize(beats, margin, beats + margin)


def _at_full_rate(flow: Flow, least: Mapping[Edge, FifoSize]) -> Mapping[Edge, FifoSize]:
    """FIFOs with which the network can follow a schedule at the rate of the bottleneck.

    Every stage follows either the early schedule or the late one; a stage before an early one is
    early. Each such choice is a schedule, since nothing is late for an early reader and nothing
    comes before it is there. A FIFO holds what its writer has sent and its reader has no room for,
    which depends on the two choices alone: the choice of the least memory is a minimum cut.
    """
    known = streams(flow)
    early = schedule(flow)
    late = late_schedule(flow, early)

    def depth(edge: Edge, reader: Schedule, writer: Schedule) -> int:
        stream, pixels = known[edge.value], reader.waiting(edge, writer)
        # A single pixel that waits finds room in the registers of its writer: no FIFO for that
        # alone, unless a second reader would wait as well.
        alone = len(flow.readers(edge.value)) == 1 and edge.value not in flow.outputs
        beats = (pixels + 1) * stream.groups if pixels > int(alone) else 0
        return max(least[edge].depth, beats)

    choices = {
        edge: (depth(edge, early, early), depth(edge, late, early), depth(edge, late, late))
        for edge in early.rooms
    }
    bits = {
        edge: tuple(beats * known[edge.value].beat_bits for beats in depths)
        for edge, depths in choices.items()
    }
    hurried = _early_values(flow, bits)
    sizes = dict(least)
    for stage in flow.stages:
        for port, value in enumerate(stage.values):
            edge = Edge(value, stage.op.name, port)
            both, mixed, neither = choices[edge]
            chosen = neither
            if value in hurried:
                chosen = both if stage.op.output in hurried else mixed
            turn = _turn(stage, port, known[value])
            sizes[edge] = replace(least[edge], depth=max(chosen, turn))
    return sizes


def _turn(stage: Stage, port: int, written: TensorStream) -> int:
    """Beats to store where a join takes its inputs in turn, each faster than its writer sends it.

    Two pixels: one that waits for its turn, and one that arrives in the meantime.
    """
    in_turn = len(stage.values) > 1 and isinstance(stage.blocks[0], Concat)
    return 2 * written.groups if in_turn and written.lanes < stage.inputs[port].lanes else 0


def _early_values(flow: Flow, bits: Mapping[Edge, tuple[int, ...]]) -> set[str]:
    """Values that leave early in the choice of the least memory.

    Args:
        bits: memory of each edge if both ends are early, if the writer alone is, if neither is.
    """
    gain: dict[str, int] = dict.fromkeys(streams(flow), 0)
    cut: nx.DiGraph[str] = nx.DiGraph()
    cut.add_nodes_from(["early", "late"])
    for stage in flow.stages:
        for port, value in enumerate(stage.values):
            both, mixed, neither = bits[Edge(value, stage.op.name, port)]
            # neither + (mixed - neither) [writer early] + (both - mixed) [reader early]
            gain[value] += neither - mixed
            gain[stage.op.output] += mixed - both
            # Without a capacity an edge cannot be cut: no early reader of a late writer.
            cut.add_edge(f"value {stage.op.output}", f"value {value}")
    for value, saved in gain.items():
        if saved >= 0:
            cut.add_edge("early", f"value {value}", capacity=saved)
        else:
            cut.add_edge(f"value {value}", "late", capacity=-saved)
    _, (side, _) = nx.minimum_cut(cut, "early", "late")
    return {value for value in gain if f"value {value}" in side}
