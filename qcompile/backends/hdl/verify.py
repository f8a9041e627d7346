"""Simulates an accelerator and compares every tensor with the integer simulator, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.flow import StreamGraph
from qcompile.backends.hdl.simulate import Simulation, SimulationResult
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.errors import ToolError, VerificationError
from qcompile.graph import Graph
from qcompile.hw.design import Design
from qcompile.hw.streams import TensorStream
from qcompile.ops import LocalAttention2d
from qcompile.sim.attention_maps import map_of
from qcompile.sim.compare import compare_arrays, compare_runs
from qcompile.sim.executor import Executor
from qcompile.types import Array

STALLS = (Stalls(0.5, 0.5, 11), Stalls(0.9, 0.3, 12), Stalls(0.3, 0.9, 13))
"""Neighbours of the runs after the one in which they never wait."""
FRAMES = 2
"""Frames that follow each other in a run, at least: feeds are repeated if they are fewer."""
SHORT_CYCLES = 2_000_000
"""A longer run takes place with one kind of stalls only."""
PYTHON_CYCLES = 100_000
"""The longest run that is asked of Amaranth's simulator: some minutes."""


@dataclass(frozen=True, slots=True)
class HdlVerifyResult:
    """What was compared, without a difference, and how fast the accelerator was.

    Attributes:
        runs: simulations, each of all frames, of which the first has no stalls.
        frames: frames of a run.
        values: tensors of a frame.
        elements: elements compared altogether.
        interval: cycles from the last frame but one to the last, without stalls.
        latency: cycles from the first input beat to the first output beat.
        fifo_high_water: the most beats in each FIFO, in any run.
        compiled: whether CXXRTL simulated (rather than Python).
    """

    runs: int
    frames: int
    values: int
    elements: int
    interval: int
    latency: int
    fifo_high_water: Mapping[str, int]
    compiled: bool

    def details(self) -> dict[str, Any]:
        """The measured part, for the report: nothing that depends on the machine's tools."""
        return {
            "runs": self.runs,
            "frames": self.frames,
            "values": self.values,
            "elements": self.elements,
            "cycles_per_frame": self.interval,
            "latency_cycles": self.latency,
        }


def verify(
    graph: Graph,
    design: Design,
    feeds_list: Sequence[Mapping[str, Array]],
    *,
    stalls: Sequence[Stalls] = STALLS,
    compiled: bool = True,
) -> HdlVerifyResult:
    """Sends the feeds through the accelerator and compares every tapped value with the simulator.

    All frames follow each other without a pause: first with neighbours that never wait, then under
    random stalls at both ends. Where the network takes floats, the accelerator gets the codes that
    the simulator's `Quantize` makes of them.

    Args:
        graph: the INTEGER graph that `design` was made from.
        design: its taps name values of the graph.
        feeds_list: inputs by value name.
        stalls: the runs after the first; only the first of them where a run is long.
        compiled: whether to use a C++ compiler if there is one.

    Raises:
        VerificationError: a tensor differs (names the first operator, index and both values), or
            the accelerator stands still (names the full FIFOs) or breaks the stream protocol.
        ToolError: the simulation could not be built.
    """
    reference = _Reference(graph, design, feeds_list)
    frames = [reference.inputs(frame) for frame in range(reference.frames)]
    if not compiled or find_compiler() is None:
        least = len(frames) * max(node.block.cycles for node in design.nodes)
        if least > PYTHON_CYCLES:
            raise ToolError(
                f"--verify: no C++ compiler was found, and {least} cycles of '{design.name}' "
                f"would take too long in Python; install g++, or set CXX"
            )
    simulation = Simulation.of_design(design, compiled=compiled)
    free = simulation.run(frames)
    elements = reference.check(free, "without stalls")
    high_water = dict(free.fifo_high_water)
    chosen = stalls if free.cycles <= SHORT_CYCLES else stalls[:1]
    for item in chosen:
        result = simulation.run(frames, item)
        where = f"with valid {item.valid:.0%} and ready {item.ready:.0%} of the time"
        elements += reference.check(result, where)
        for name, level in result.fifo_high_water.items():
            high_water[name] = max(high_water[name], level)
    return HdlVerifyResult(
        runs=1 + len(chosen),
        frames=len(frames),
        values=len(design.taps),
        elements=elements,
        interval=free.frame_cycles[-1],
        latency=free.latency,
        fifo_high_water=high_water,
        compiled=simulation.compiled,
    )


def _windowed(graph: Graph, name: str) -> LocalAttention2d:
    """The operator of a name, which attends to windows."""
    op = graph.by_name[name]
    assert isinstance(op, LocalAttention2d)
    return op


class _Reference:
    """The simulator's run of every feed, and the comparison with the hardware's."""

    def __init__(
        self, graph: Graph, design: Design, feeds_list: Sequence[Mapping[str, Array]]
    ) -> None:
        if not feeds_list:
            raise ValueError("no feeds to verify with")
        self._graph = graph
        self._design = design
        executor = Executor(graph)
        self._values = [tap for tap in design.taps if tap not in design.attention.values()]
        self._layers = [_windowed(graph, name) for name in design.attention]
        wanted = [value for op in self._layers for value in op.inputs[:3]]
        taps = tuple(dict.fromkeys((*self._values, *design.inputs, *wanted)))
        self._expected = [executor.run(feeds, taps=taps) for feeds in feeds_list]
        self._maps = [
            [map_of(graph, op, expected) for op in self._layers] for expected in self._expected
        ]
        repeats = -(-FRAMES // len(feeds_list))
        self.frames = len(feeds_list) * repeats
        self._outputs = StreamGraph(graph).outputs

    def inputs(self, frame: int) -> list[Array]:
        """What the accelerator is sent: beats of each input."""
        expected = self._expected[frame % len(self._expected)]
        return [stream.to_beats(expected[value]) for value, stream in self._design.inputs.items()]

    def check(self, result: SimulationResult, where: str) -> int:
        """Compares all frames of a run; returns the number of elements.

        Raises:
            VerificationError: there is a difference, a deadlock or a breach of the protocol.
        """
        if result.deadlock is not None:
            raise VerificationError(f"the hardware deadlocks {where}: {result.deadlock}")
        elements = 0
        for frame in range(self.frames):
            expected = self._expected[frame % len(self._expected)]
            actual = {}
            for value in self._values:
                actual[value] = self._tensor(result, value, frame, expected[value].shape)
                elements += actual[value].size
            self._compare({v: expected[v] for v in actual}, actual, f"frame {frame}, {where}")
            maps = self._maps[frame % len(self._maps)]
            for op, weights in zip(self._layers, maps, strict=True):
                self._compare_attention(result, op, weights, frame, where)
                elements += weights.size
            ports = zip(self._outputs, self._design.outputs.values(), result.outputs, strict=True)
            for value, stream, port in ports:
                sent = stream.from_beats(port[frame]).reshape(expected[value].shape)
                elements += sent.size
                self._compare(
                    {value: expected[value]}, {value: sent}, f"output, frame {frame}, {where}"
                )
        if result.faults:
            raise VerificationError(f"the hardware breaks its protocol {where}: {result.faults[0]}")
        return elements

    def _tensor(
        self, result: SimulationResult, value: str, frame: int, shape: tuple[int, ...]
    ) -> Array:
        frames = result.taps[value]
        assert isinstance(frames.stream, TensorStream)
        return frames.stream.from_beats(frames[frame]).reshape(shape)

    def _compare_attention(
        self,
        result: SimulationResult,
        op: LocalAttention2d,
        expected: Array,
        frame: int,
        where: str,
    ) -> None:
        """The weights inside of an operator, [heads, positions, rows, columns]."""
        tap = self._design.attention[op.name]
        frames = result.taps[tap]
        assert isinstance(frames.stream, TensorStream)
        # A beat has one position of as many heads as it has lanes.
        lanes = frames.stream.lanes
        split = (op.heads // lanes, op.positions, lanes, *expected.shape[2:])
        found = frames.stream.from_beats(frames[frame]).reshape(split)
        found = found.swapaxes(1, 2).reshape(expected.shape)
        mismatch = compare_arrays(op.label(), tap, expected, found)
        if mismatch is not None:
            raise VerificationError(
                f"hardware and simulator differ at {mismatch} (frame {frame}, {where})"
            )

    def _compare(
        self, expected: Mapping[str, Array], actual: Mapping[str, Array], where: str
    ) -> None:
        mismatch = compare_runs(expected, actual, self._graph)
        if mismatch is not None:
            raise VerificationError(f"hardware and simulator differ at {mismatch} ({where})")
