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
from qcompile.backends.c.row_groups import RowLayout, group_rows, held_macro
from qcompile.backends.c.rows import plan_row_step
from qcompile.backends.c.table import PLANE_PLANNERS, PLANNERS
from qcompile.backends.c.verify import VerifyResult, verify
from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Graph, Op
from qcompile.packing import TernaryPacking
from qcompile.passes.choose_kernels import ChooseKernels
from qcompile.passes.join_concats import JoinConcats
from qcompile.passes.place_planes import PlacePlanes, memory_bytes
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.passes.plan_buffers import Buffer, BufferPlan, PlanBuffers
from qcompile.types import Array, Shape

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
    """

    entry: str = "model"
    separate_weights: bool = False
    ternary_packing: TernaryPacking = TernaryPacking.TWO_BITS
    levels: tuple[Level, ...] = ALL_LEVELS
    mcu: bool = False

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
        steps, rows = self.plan(graph)
        release = plan_arena(graph, steps, keep_all=False, rows=rows)
        debug = plan_arena(graph, steps, keep_all=True, rows=rows)
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
            planes=PlacePlanes().run(graph).values if rows is None else {},
            release=release,
            debug=debug,
            rows=rows,
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

    def plan(self, graph: Graph) -> tuple[list[Step], RowLayout | None]:
        """One step for each operator, except concatenations that a convolution reads in parts.

        Returns:
            The steps, and how they go by rows if they do.
        """
        return self._plan_rows(graph) if self.mcu else (self._plan_whole(graph), None)

    def _plan_whole(self, graph: Graph) -> list[Step]:
        choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
        planes = PlacePlanes().run(graph)
        joined = JoinConcats().run(graph, choices, placements, planes)
        context = Context(
            graph, choices, placements, self.ternary_packing, joined, self.levels, planes=planes
        )
        steps = []
        for index, op in enumerate(graph.ops):
            if op.output in joined:
                continue
            step = Step(op, step_prefix(index, op))
            planners = PLANE_PLANNERS if op.name in planes.native else PLANNERS
            planners[type(op)].plan(context, step, op)
            if not any(context.type(value).is_float for value in (*op.inputs, *op.outputs)):
                # Floats would be contracted into fused multiply-adds where the level has them.
                add_recompiled(step, self.levels)
            steps.append(step)
        return steps

    def _plan_rows(self, graph: Graph) -> tuple[list[Step], RowLayout]:
        choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
        joined = JoinConcats().run(graph, choices, placements)
        context = Context(graph, choices, placements, self.ternary_packing, joined, ())
        held = {value: str(image_rows(graph.types[value].shape)) for value in graph.inputs}
        steps, outputs = [], []
        for index, op in enumerate(graph.ops):
            if op.output in joined:
                continue
            step = Step(op, step_prefix(index, op))
            held[op.output] = held_macro(step)
            output = plan_row_step(context, step, op, held)
            if output is None or op.output in graph.outputs:
                held[op.output] = str(image_rows(graph.types[op.output].shape))
            steps.append(step)
            outputs.append(output)
        return steps, group_rows(graph, steps, outputs)

    def verify(
        self, graph: Graph, program: CProgram, feeds_list: Sequence[Mapping[str, Array]]
    ) -> VerifyResult:
        """Builds `program` and compares it with the simulator; see `verify.verify`."""
        return verify(graph, program, feeds_list)


def step_prefix(index: int, op: Op) -> str:
    """What the names of the constants of operator number `index` begin with."""
    name = identifier(op.name, 24)
    return f"l{index:02d}_{name}" if name else f"l{index:02d}"


def image_rows(shape: Shape) -> int:
    """Rows of an image [1, C, H, W], 1 for what is none."""
    return shape[2] if len(shape) == 4 else 1


def plan_arena(
    graph: Graph, steps: Sequence[Step], keep_all: bool, rows: RowLayout | None = None
) -> BufferPlan:
    """Places activations and scratch memory.

    Args:
        graph: what the steps compute.
        steps: in order.
        keep_all: every activation, whole, lives to the end.
        rows: how the steps go by rows, if they do: what a group writes or reads lives as long as
            the group, and only some rows of it.
    """
    # Who reads a value: the steps whose pointers name it (a joined concatenation has no step).
    readers: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        for pointer in step.pointers:
            if pointer.value is not None:
                readers.setdefault(pointer.value, []).append(index)
    public = {*graph.inputs, *graph.outputs}
    planes = PlacePlanes().run(graph).values if rows is None else {}
    end = len(steps)
    buffers = []
    for index, step in enumerate(steps):
        for value in step.op.outputs:
            if value in public:
                continue
            first, last = (0, end) if keep_all else (index, max([index, *readers.get(value, [])]))
            size = memory_bytes(graph.types[value], planes.get(value))
            if rows is not None and not keep_all:
                first, last = rows.span(first)[0], rows.span(last)[1]
                size = size // rows.rows.get(value, 1) * rows.held.get(value, 1)
            over = () if keep_all else tuple(value_name(name) for name in step.in_place)
            buffers.append(Buffer(value_name(value), size, first, last, over))
        for pointer in step.pointers:
            if pointer.value is None:
                name = scratch_name(index, pointer.name)
                buffers.append(Buffer(name, pointer.scratch_bytes, index, index))
        if step.work_bytes:
            buffers.append(Buffer(scratch_name(index, WORK), step.work_bytes, index, index))
    plan = PlanBuffers(ARENA_ALIGNMENT).run(buffers)
    return BufferPlan(plan.offsets, max(plan.size, ARENA_ALIGNMENT))


__all__ = ["CBackend", "CProgram", "LayerBytes", "plan_arena"]
