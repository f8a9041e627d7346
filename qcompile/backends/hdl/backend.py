"""The HDL back end: an integer graph becomes a streaming accelerator."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.names import identifier, unique
from qcompile.backends.hdl.assemble import LONGEST_NAME, assemble, stage_prefix
from qcompile.backends.hdl.emit import emit
from qcompile.backends.hdl.emit_request import EmitRequest, LayerRow, PortTensor
from qcompile.backends.hdl.estimates import estimate, estimate_component, total
from qcompile.backends.hdl.flow import StreamGraph
from qcompile.backends.hdl.netlist import Area
from qcompile.devices import DEVICES, Device
from qcompile.entry_name import check_entry
from qcompile.errors import QCompileError, Unsupported, UnsupportedError
from qcompile.fold_file import fixed_folds, fold_text
from qcompile.graph import Graph
from qcompile.hdl_options import FOLD_FILE, FifoPolicy
from qcompile.hw.axi_stream import FrameInput, FrameOutput
from qcompile.hw.control import Registers
from qcompile.hw.design import Design
from qcompile.hw.pressure import predict
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.schedule import Edge, schedule
from qcompile.hw.schedule import streams as known_streams
from qcompile.hw.stage import Flow, Fold, Stage
from qcompile.passes.choose_folding import ChooseFolding, FoldingLimits, cycles_for
from qcompile.passes.size_fifos import FifoPlan, SizeFifos
from qcompile.sim.file import load_network, network_bytes
from qcompile.types import Array

NETWORK_FILE = "network.qnet.npz"
WITHOUT_DEVICE = 64
"""Multipliers to use where neither a device nor a target says how many, or twice the least."""
LUT_DOUBT = 1.25
"""More estimated LUTs than this times those of the device are refused: tools may need fewer."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Clock cycles, by the cycle model.

    Attributes:
        interval: from frame to frame.
        latency: from the first input beat to the last output beat of a frame that comes alone.
    """

    interval: int
    latency: int


@dataclass(frozen=True)
class HdlPlan:
    """An accelerator before it is written: every decision, nothing elaborated.

    Attributes:
        streams: the network.
        flow: its stages.
        fifos: depths, in beats as written.
        speed: interval and latency of the frames.
        design: blocks and channels.
        placed: edge -> node of its FIFO.
    """

    streams: StreamGraph
    flow: Flow
    fifos: FifoPlan
    speed: Speed
    design: Design
    placed: Mapping[Edge, str]

    @property
    def minimums(self) -> dict[str, int]:
        """Node of a FIFO -> its proven minimum, in its beats."""
        written, built = known_streams(self.flow), self.design.streams
        return {
            node: -(
                -self.fifos.sizes[edge].minimum * written[edge.value].lanes // built[node].lanes
            )
            for edge, node in self.placed.items()
        }

    @property
    def folds(self) -> dict[str, Fold]:
        """Operator name -> its folding."""
        return {stage.op.name: stage.fold for stage in self.flow.stages}

    def fifo_bits(self) -> dict[Edge, int]:
        """Edge -> payload bits of its FIFO."""
        return self._bits({edge: size.depth for edge, size in self.fifos.sizes.items()})

    def fifo_minimum_bits(self) -> int:
        """Payload bits of FIFOs that are just deep enough never to stop."""
        least = {edge: size.minimum + size.margin for edge, size in self.fifos.sizes.items()}
        return sum(self._bits(least).values())

    def _bits(self, depths: Mapping[Edge, int]) -> dict[Edge, int]:
        known = known_streams(self.flow)
        return {edge: depth * known[edge.value].beat_bits for edge, depth in depths.items()}


@dataclass(frozen=True)
class HdlProgram:
    """An emitted accelerator."""

    plan: HdlPlan
    artifacts: Artifacts
    request: EmitRequest


@dataclass(frozen=True)
class HdlBackend:
    """Options of the HDL back end.

    Attributes:
        entry: prefix of module and file names.
        device: limits what may be used; None for no limit.
        clock: MHz.
        target_fps: frames a second to reach with as little as possible.
        multipliers: at most so many.
        fold: file with the folding of layers.
        fifos: what the FIFOs are for.
    """

    entry: str = "model"
    device: Device | None = None
    clock: float = 100.0
    target_fps: float | None = None
    multipliers: int | None = None
    fold: Path | None = None
    fifos: FifoPolicy = FifoPolicy.RATE

    def __post_init__(self) -> None:
        check_entry(self.entry, hdl=True)

    def check(self, graph: Graph) -> list[Unsupported]:
        """All operators this back end refuses."""
        return list(StreamGraph(graph).refused())

    def plan(self, graph: Graph) -> HdlPlan:
        """Chooses foldings and FIFO depths, and puts the design together.

        Raises:
            UnsupportedError: `check` found something.
            QCompileError: the device is too small, or the target out of reach.
        """
        problems = self.check(graph)
        if problems:
            raise UnsupportedError(problems, "the HDL back end")
        streams = StreamGraph(graph, self._multiplier())
        flow = streams.flow(self._choose(streams))
        fifos = SizeFifos(self.fifos).run(flow)
        depths = {edge: size.depth for edge, size in fifos.sizes.items()}
        placed: dict[Edge, str] = {}
        design = assemble(flow, depths, f"{self.entry}_core", streams.aliases, placed)
        return HdlPlan(streams, flow, fifos, self._speed(flow, depths), design, placed)

    def emit(
        self,
        graph: Graph,
        metadata: Mapping[str, str] | None = None,
        vectors: Sequence[Mapping[str, Array]] = (),
    ) -> HdlProgram:
        """Verilog, testbench, manifest and so on.

        Args:
            graph: an INTEGER graph.
            metadata: what the files say of their origin.
            vectors: for each frame of the testbench every tap, by value name.

        Raises:
            UnsupportedError: `check` found something.
            QCompileError: the device is too small, or the target out of reach.
        """
        plan = self.plan(graph)
        device = {} if self.device is None else {"device": self.device.name}
        metadata = {**(metadata or {}), "fifos": self.fifos.value, **device}
        request = self._request(graph, plan, metadata, vectors)
        if self.device is not None:
            self._check_fit(plan, request.estimate, self.device)
        files = {
            **emit(request).files,
            NETWORK_FILE: network_bytes(graph, metadata),
            FOLD_FILE: fold_text(plan.folds),
        }
        return HdlProgram(plan, Artifacts(files), request)

    def _choose(self, streams: StreamGraph) -> dict[str, Stage]:
        """One stage for each operator."""
        allowed = streams.folds()
        fixed = {} if self.fold is None else fixed_folds(self.fold, allowed)
        candidates = {
            op.name: [
                streams.stage(op, fold)
                for fold in allowed[op.name]
                if fixed.get(op.name, fold) == fold
            ]
            for op in streams.ops
        }
        least = sum(min(stage.multipliers for stage in stages) for stages in candidates.values())
        return ChooseFolding(self._limits(least), fixed).run(candidates)

    def _multiplier(self) -> MultiplierSize | None:
        """That of the device; 18 x 18 bits where none is named."""
        device = self.device
        if device is None:
            return MULTIPLIER_18
        if not device.multipliers:
            return None
        return MultiplierSize(device.multiplier_a_bits, device.multiplier_b_bits)

    def _limits(self, least: int) -> FoldingLimits:
        """What the options and the device leave room for; `least` multipliers are needed."""
        cycles = None if self.target_fps is None else cycles_for(self.target_fps, self.clock)
        multipliers, ram_bits = self.multipliers, None
        if self.device is not None and not self.device.multipliers:
            # Every product is made of LUTs: the least parallel that will do.
            return FoldingLimits(cycles)
        if self.device is not None:
            ram_bits = self.device.ram_bits
            multipliers = self.device.multipliers if multipliers is None else multipliers
        if self == HdlBackend(self.entry, clock=self.clock, fifos=self.fifos):
            multipliers = max(WITHOUT_DEVICE, 2 * least)
        return FoldingLimits(cycles, multipliers, ram_bits)

    def _speed(self, flow: Flow, depths: Mapping[Edge, int]) -> Speed:
        """With FIFOs for the full rate no FIFO is ever full, which is quicker to follow."""
        if self.fifos is FifoPolicy.MINIMUM:
            found = predict(flow, depths)
            return Speed(found.interval, found.latency)
        return Speed(schedule(flow).interval, schedule(flow, cycles=1).latency)

    def _request(
        self,
        graph: Graph,
        plan: HdlPlan,
        metadata: Mapping[str, str],
        vectors: Sequence[Mapping[str, Array]],
    ) -> EmitRequest:
        """What the files are made from."""
        areas = self._areas(plan)
        layers = self._layers(plan, areas)
        text = repr([(row.name, row.fold, row.cycles) for row in layers])
        return EmitRequest(
            design=plan.design,
            network=graph.name,
            inputs=tuple(PortTensor(v, graph.types[v]) for v in plan.streams.inputs),
            outputs=tuple(PortTensor(v, graph.types[v]) for v in plan.streams.outputs),
            layers=layers,
            interval=plan.speed.interval,
            latency=plan.speed.latency,
            exact=self.fifos is FifoPolicy.RATE,
            vectors=vectors,
            entry=self.entry,
            clock=self.clock,
            device=self.device,
            estimate=total((*areas.values(), *self._ends(plan))).to_dict() if areas else {},
            fifo_minimum=plan.minimums,
            metadata=metadata,
            build=zlib.crc32(text.encode()),
        )

    def needs(self, plan: HdlPlan) -> Mapping[str, int]:
        """What a plan takes of the device, by formula; nothing without a device.

        Raises:
            QCompileError: that is more than it has.
        """
        if self.device is None:
            return {}
        areas = self._areas(plan)
        estimate = total((*areas.values(), *self._ends(plan))).to_dict()
        self._check_fit(plan, estimate, self.device)
        return estimate

    def _check_fit(self, plan: HdlPlan, needs: Mapping[str, int], device: Device) -> None:
        """
        Raises:
            QCompileError: the device holds too little; says what is lacking, and what to do.
        """
        rows = (
            ("multipliers", needs["multipliers"], device.multipliers, 1.0),
            ("block RAMs (estimated)", needs["ram_blocks"], device.ram_blocks, 1.0),
            ("LUTs (estimated)", needs["luts"], device.luts, LUT_DOUBT),
        )
        lacking = [
            f"{needed:,} {what}, {needed - there:,} more than its {there:,}"
            for what, needed, there, doubt in rows
            if needed > there * doubt
        ]
        if not lacking:
            return
        weights = max(plan.flow.stages, key=lambda stage: stage.ram_bits)
        fifos, least = sum(plan.fifo_bits().values()), plan.fifo_minimum_bits()
        saved = f" (saves {fifos - least:,} RAM bits)" if fifos > least else ""
        raise QCompileError(
            f"{device.name} is too small: the accelerator needs {'; '.join(lacking)}; of its "
            f"{plan.design.ram_bits:,} RAM bits {fifos:,} are in FIFOs and {weights.ram_bits:,} in "
            f"{weights.op.label()}; use --fifos minimum{saved}, a larger --device, a smaller "
            f"image, fewer --multipliers or a lower --target-fps, or fewer --wbits and --abits"
        )

    def _areas(self, plan: HdlPlan) -> Mapping[str, Area]:
        """What each node will take of the device, by formula; nothing without a device."""
        if self.device is None:
            return {}
        return {node.name: estimate(node.block, self.device) for node in plan.design.nodes}

    def _ends(self, plan: HdlPlan) -> Sequence[Area]:
        """What the AXI ends and the registers will take, by formula."""
        inputs, outputs = plan.design.inputs.values(), plan.design.outputs.values()
        parts = [Registers([*inputs], [*outputs])]
        parts += [FrameInput(tensor) for tensor in inputs]
        parts += [FrameOutput(tensor) for tensor in outputs]
        return [
            estimate_component(part, self.device, type(part).__name__)
            for part in parts
            if self.device
        ]

    def _layers(self, plan: HdlPlan, areas: Mapping[str, Area]) -> tuple[LayerRow, ...]:
        """One row for each stage."""
        names = [identifier(stage.op.name, LONGEST_NAME) or "layer" for stage in plan.flow.stages]
        rows = []
        for index, (name, stage) in enumerate(zip(unique(names), plan.flow.stages, strict=True)):
            nodes = tuple(
                node.name for node in plan.design.nodes if node.name.startswith(stage_prefix(index))
            )
            rows.append(
                LayerRow(
                    name=name,
                    operator=stage.op.label(),
                    kind=stage.op.kind,
                    nodes=nodes,
                    fold=stage.fold,
                    cycles=stage.cycles,
                    latency=stage.latency,
                    ram_bits=stage.ram_bits,
                    multipliers=stage.multipliers,
                    estimate=total(areas[node] for node in nodes).to_dict() if areas else {},
                )
            )
        return tuple(rows)


def rebuild(folder: Path) -> Design:
    """The design of an emitted folder, from its network file and its foldings.

    Raises:
        DataError: a file is missing or damaged.
    """
    graph, metadata = load_network(folder / NETWORK_FILE)
    backend = HdlBackend(
        device=DEVICES.get(metadata.get("device", "")),
        fold=folder / FOLD_FILE,
        fifos=FifoPolicy(metadata.get("fifos", FifoPolicy.RATE.value)),
    )
    return backend.plan(graph).design
