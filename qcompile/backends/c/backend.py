"""The C back end: an integer graph becomes source files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.check import unsupported
from qcompile.backends.c.context import Context
from qcompile.backends.c.emitted import CProgram, LayerBytes
from qcompile.backends.c.levels import ALL_LEVELS, Level
from qcompile.backends.c.multiversion import add_recompiled
from qcompile.backends.c.names import check_entry, identifier
from qcompile.backends.c.program import ARENA_ALIGNMENT, Role, Step
from qcompile.backends.c.render import WORK, Layout, render, scratch_name, value_name
from qcompile.backends.c.table import PLANNERS
from qcompile.backends.c.verify import VerifyResult, verify
from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Graph
from qcompile.packing import TernaryPacking
from qcompile.passes.choose_kernels import ChooseKernels
from qcompile.passes.join_concats import JoinConcats
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.passes.plan_buffers import Buffer, BufferPlan, PlanBuffers
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
    """

    entry: str = "model"
    separate_weights: bool = False
    ternary_packing: TernaryPacking = TernaryPacking.TWO_BITS
    levels: tuple[Level, ...] = ALL_LEVELS

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
        steps = self.plan(graph)
        release = plan_arena(graph, steps, keep_all=False)
        debug = plan_arena(graph, steps, keep_all=True)
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
            graph=graph,
            steps=tuple(steps),
            placements=PlaceTensors().run(graph),
            release=release,
            debug=debug,
        )
        files = render(layout, metadata or {}, vectors, self.separate_weights)
        layer_bytes = {op.name: LayerBytes(0, 0, 0) for op in graph.ops}
        for step in steps:
            by_role = step.bytes_by_role
            layer_bytes[step.op.name] = LayerBytes(
                by_role[Role.WEIGHTS], by_role[Role.EPILOGUE], by_role[Role.TABLE]
            )
        total = sum(item.total for item in layer_bytes.values())
        return CProgram(Artifacts(files), release.size, total, layer_bytes, layout)

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each operator, except concatenations that a convolution reads in parts."""
        choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
        joined = JoinConcats().run(graph, choices, placements)
        context = Context(graph, choices, placements, self.ternary_packing, joined, self.levels)
        steps = []
        for index, op in enumerate(graph.ops):
            if op.output in joined:
                continue
            name = identifier(op.name, 24)
            step = Step(op, f"l{index:02d}_{name}" if name else f"l{index:02d}")
            PLANNERS[type(op)].plan(context, step, op)
            if not any(context.type(value).is_float for value in (*op.inputs, *op.outputs)):
                # Floats would be contracted into fused multiply-adds where the level has them.
                add_recompiled(step, self.levels)
            steps.append(step)
        return steps

    def verify(
        self, graph: Graph, program: CProgram, feeds_list: Sequence[Mapping[str, Array]]
    ) -> VerifyResult:
        """Builds `program` and compares it with the simulator; see `verify.verify`."""
        return verify(graph, program, feeds_list)


def plan_arena(graph: Graph, steps: Sequence[Step], keep_all: bool) -> BufferPlan:
    """Places activations and scratch memory; `keep_all` lets every activation live to the end."""
    # Who reads a value: the steps whose pointers name it (a joined concatenation has no step).
    readers: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        for pointer in step.pointers:
            if pointer.value is not None:
                readers.setdefault(pointer.value, []).append(index)
    public = {*graph.inputs, *graph.outputs}
    end = len(steps)
    buffers = []
    for index, step in enumerate(steps):
        for value in step.op.outputs:
            if value in public:
                continue
            first, last = (0, end) if keep_all else (index, max([index, *readers.get(value, [])]))
            buffers.append(Buffer(value_name(value), graph.types[value].storage_bytes, first, last))
        for pointer in step.pointers:
            if pointer.value is None:
                name = scratch_name(index, pointer.name)
                buffers.append(Buffer(name, pointer.scratch_bytes, index, index))
        if step.work_bytes:
            buffers.append(Buffer(scratch_name(index, WORK), step.work_bytes, index, index))
    plan = PlanBuffers(ARENA_ALIGNMENT).run(buffers)
    return BufferPlan(plan.offsets, max(plan.size, ARENA_ALIGNMENT))


__all__ = ["CBackend", "CProgram", "LayerBytes", "plan_arena"]
