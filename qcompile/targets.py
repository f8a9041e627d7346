"""What can be made of an integer graph: one class a target, which emits and verifies its files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.footprint import Footprint, measure
from qcompile.backends.c.measure import Measurement, measure_program
from qcompile.backends.c.verify import verify
from qcompile.boundary import InputSpec
from qcompile.errors import VerificationError
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.onnx_options import ONNX_TARGETS
from qcompile.options import CompileOptions, Target
from qcompile.power_counters import find_counters
from qcompile.report.hardware import HardwareReport
from qcompile.sim.attention_maps import attention_maps
from qcompile.sim.compare import compare_arrays, compare_runs
from qcompile.sim.executor import Executor
from qcompile.sim.file import load_network, network_bytes
from qcompile.sim.vectors import vectors_bytes
from qcompile.types import Array

NETWORK_FILE = "network.qnet.npz"
VECTORS_FILE = "vectors.npz"
VECTORS = 2
"""Inputs that the emitted testbench runs."""


class Emitted(Protocol):
    """What a target made, and what it costs (None where the target has no such thing)."""

    @property
    def artifacts(self) -> Artifacts:
        """The files."""
        ...

    @property
    def layer_bytes(self) -> Mapping[str, int] | None:
        """Operator name -> bytes of its constants."""
        ...

    @property
    def constant_bytes(self) -> int | None:
        """All `const` data."""
        ...

    @property
    def arena_bytes(self) -> int | None:
        """Working memory."""
        ...

    @property
    def hardware(self) -> HardwareReport | None:
        """Cost and speed of an accelerator."""
        ...

    @property
    def footprint(self) -> Footprint | None:
        """Flash and RAM of a microcontroller."""
        ...

    def verify(self, feeds: Sequence[Feed]) -> dict[str, Any]:
        """Compares what was emitted with the simulator on the feeds; returns what was measured.

        Raises:
            VerificationError: they differ; names the first operator, index and both values.
        """
        ...


@dataclass(frozen=True)
class EmittedC:
    """A C program."""

    graph: Graph
    program: CProgram
    hardware: HardwareReport | None = None
    footprint: Footprint | None = None

    @property
    def artifacts(self) -> Artifacts:
        return self.program.artifacts

    @property
    def layer_bytes(self) -> Mapping[str, int] | None:
        return {name: item.total for name, item in self.program.layer_bytes.items()}

    @property
    def constant_bytes(self) -> int | None:
        return self.program.constant_bytes

    @property
    def arena_bytes(self) -> int | None:
        return self.program.arena_bytes

    def verify(self, feeds: Sequence[Feed]) -> dict[str, Any]:
        """Builds the C, release and debug, and compares every tensor."""
        result = verify(self.graph, self.program, feeds)
        if result.mismatch is not None:
            raise VerificationError(f"C and simulator differ at {result.mismatch}")
        return result.details()

    def measure(self, feed: Feed) -> Measurement:
        """Times the C on this machine."""
        return measure_program(self.program, feed, find_counters())


@dataclass(frozen=True)
class EmittedNetwork:
    """A network file for the simulator."""

    graph: Graph
    artifacts: Artifacts
    layer_bytes: Mapping[str, int] | None = None
    constant_bytes: int | None = None
    arena_bytes: int | None = None
    hardware: HardwareReport | None = None
    footprint: Footprint | None = None

    def verify(self, feeds: Sequence[Feed]) -> dict[str, Any]:
        """Reads the file back and compares every tensor."""
        content = self.artifacts.files[NETWORK_FILE]
        assert isinstance(content, bytes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / NETWORK_FILE
            path.write_bytes(content)
            reloaded = Executor(load_network(path)[0])
        executor = Executor(self.graph)
        for feed in feeds:
            expected = executor.run(feed, taps="all")
            maps = attention_maps(reloaded.graph, feed)
            for name, wanted in attention_maps(self.graph, feed).items():
                other = compare_arrays(name, "attention", wanted, maps[name])
                if other is not None:
                    raise VerificationError(f"the network file differs at {other}")
            difference = compare_runs(expected, reloaded.run(feed, taps="all"), self.graph)
            if difference is not None:
                raise VerificationError(f"the network file differs at {difference}")
        return {}


def emit(
    graph: Graph,
    options: CompileOptions,
    metadata: Mapping[str, str],
    feeds: Sequence[Feed],
    quantized: Graph,
    specs: Mapping[str, InputSpec],
) -> Emitted:
    """The files of `options.target`.

    Args:
        graph: of the integer stage.
        options: choose the target and its names.
        metadata: what the files say of their origin.
        feeds: inputs of the integer graph; the first few become test vectors.
        quantized: the same network before lowering: what is exported as ONNX.
        specs: what the pixels of each input mean.

    Raises:
        UnsupportedError: the target refuses operators; lists all of them.
    """
    if options.target is Target.HDL:
        from qcompile.target_hdl import emit_hdl

        return emit_hdl(graph, options, metadata, feeds)
    if options.target.value in ONNX_TARGETS:
        from qcompile.target_onnx import emit_onnx

        return emit_onnx(quantized, graph, specs, options, metadata)
    executor = Executor(graph)
    vectors: list[Mapping[str, Array]] = [
        {**feed, **executor.run(feed)} for feed in feeds[:VECTORS]
    ]
    if options.target is Target.SIM:
        files = {
            NETWORK_FILE: network_bytes(graph, metadata),
            VECTORS_FILE: vectors_bytes(graph, vectors),
        }
        return EmittedNetwork(graph, Artifacts(files))
    backend = CBackend(
        options.entry,
        options.separate_weights,
        mcu=options.mcu,
        keeps_attention=options.taps is not None,
    )
    program = backend.emit(graph, metadata, vectors)
    return EmittedC(graph, program, footprint=measure(program) if options.mcu else None)
