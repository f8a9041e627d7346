"""The C back end: an integer graph becomes source files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.check import unsupported
from qcompile.backends.c.context import Context
from qcompile.backends.c.emitted import CProgram, LayerBytes
from qcompile.backends.c.layout import Layout
from qcompile.backends.c.levels import ALL_LEVELS, Level
from qcompile.backends.c.mcu import plan_rows
from qcompile.backends.c.multiversion import add_recompiled
from qcompile.backends.c.names import check_entry
from qcompile.backends.c.planned import Planned, step_prefix
from qcompile.backends.c.program import Role, Step
from qcompile.backends.c.render import render
from qcompile.backends.c.table import PLANE_PLANNERS, PLANNERS
from qcompile.backends.c.verify import VerifyResult, verify
from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Graph
from qcompile.packing import TernaryPacking
from qcompile.passes.choose_kernels import ChooseKernels
from qcompile.passes.fuse_attention import FuseAttention
from qcompile.passes.join_concats import JoinConcats
from qcompile.passes.join_followers import JoinFollowers
from qcompile.passes.place_planes import PlacePlanes
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.types import Array

LARGEST_ARENA = (1 << 31) - 1


@dataclass(frozen=True)
class CBackend:
    """Options of the C back end.

    Attributes:
        entry: prefix of every public name and of the file names; a C identifier.
        separate_weights: put the packed weights into a file of their own.
        ternary_packing: how ternary weights are stored.
        levels: instruction sets with kernels of their own in the file, besides portable C.
        mcu: least memory, for microcontrollers: portable kernels, rows instead of whole tensors.
        keeps_attention: builds with taps also keep the weights of attention over windows, which
            are no tensor of the network.
    """

    entry: str = "model"
    separate_weights: bool = False
    ternary_packing: TernaryPacking = TernaryPacking.TWO_BITS
    levels: tuple[Level, ...] = ALL_LEVELS
    mcu: bool = False
    keeps_attention: bool = False

    def __post_init__(self) -> None:
        check_entry(self.entry)

    def check(self, graph: Graph) -> list[Unsupported]:
        """All operators this back end refuses."""
        return unsupported(graph)

    def emit(
        self,
        graph: Graph,
        metadata: Mapping[str, str] | None = None,
        vectors: Sequence[Mapping[str, Array]] = (),
    ) -> CProgram:
        """Source, header, testbench and build files.

        Args:
            graph: an INTEGER graph.
            metadata: lines of the header comment (version, options, hash); escaped here.
            vectors: test vectors: for each, all inputs and expected outputs by value name.

        Raises:
            UnsupportedError: `check` found something, or the arena would exceed 2 GiB.
        """
        problems = self.check(graph)
        if problems:
            raise UnsupportedError(problems, "the C back end")
        planned = self.plan(graph)
        debug = planned.arena(keep_all=True)
        if debug.size > LARGEST_ARENA and any(step.inside for step in planned.steps):
            planned = self.plan(graph, keeps_scores=False)
            debug = planned.arena(keep_all=True)
        steps, rows = planned.steps, planned.rows
        release = planned.arena(keep_all=False)
        if debug.size > LARGEST_ARENA:
            largest = max(graph.ops, key=lambda op: graph.output_type(op).storage_bytes)
            problem = Unsupported(
                largest.kind,
                largest.name,
                f"all tensors together need {debug.size} bytes, more than 2 GiB",
                "use a smaller --input-shape",
            )
            raise UnsupportedError([problem], "the C back end")
        layout = Layout(
            entry=self.entry,
            graph=planned.graph,
            steps=tuple(steps),
            placements=PlaceTensors().run(planned.graph),
            planes=planned.planes,
            release=release,
            debug=debug,
            rows=rows,
        )
        files = render(layout, metadata or {}, vectors, self.separate_weights)
        layer_bytes = {op.name: LayerBytes(0, 0, 0) for op in graph.ops}
        for step in steps:
            by_role = step.bytes_by_role
            layer = planned.origin(step.op)
            layer_bytes[layer] = layer_bytes[layer].plus(
                LayerBytes(by_role[Role.WEIGHTS], by_role[Role.EPILOGUE], by_role[Role.TABLE])
            )
        total = sum(item.total for item in layer_bytes.values())
        return CProgram(Artifacts(files), release.size, total, layer_bytes, layout, planned.again)

    def plan(self, graph: Graph, keeps_scores: bool = True) -> Planned:
        """One step for each operator, except concatenations that a convolution reads in parts, what
        it computes besides, and what of attention is fused; builds with taps may keep that."""
        if self.mcu:
            return plan_rows(graph, self.ternary_packing, self.keeps_attention)
        choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
        planes = PlacePlanes().run(graph)
        joined = JoinConcats().run(graph, choices, placements, planes)
        followers = JoinFollowers().run(graph, placements, planes)
        attention = FuseAttention().run(graph)
        inside = {*joined, *(op.output for op in followers.values())}
        inside |= {op.output for item in attention.values() for op in item.inside}
        context = Context(
            graph,
            choices,
            placements,
            self.ternary_packing,
            joined,
            self.levels,
            planes=planes,
            followers=followers,
            attention=attention,
            keeps_attention=self.keeps_attention,
            keeps_scores=keeps_scores,
        )
        steps = []
        for index, op in enumerate(graph.ops):
            if op.output in inside:
                continue
            step = Step(op, step_prefix(index, op))
            planners = PLANE_PLANNERS if op.name in planes.native else PLANNERS
            planners[type(op)].plan(context, step, op)
            if not any(context.type(value).is_float for value in (*op.inputs, *op.outputs)):
                # Floats would be contracted into fused multiply-adds where the level has them.
                add_recompiled(step, self.levels)
            steps.append(step)
        return Planned(graph, steps, planes=planes.values)

    def verify(
        self, graph: Graph, program: CProgram, feeds_list: Sequence[Mapping[str, Array]]
    ) -> VerifyResult:
        """Builds `program` and compares it with the simulator; see `verify.verify`."""
        return verify(graph, program, feeds_list)


__all__ = ["CBackend", "CProgram", "LayerBytes"]
