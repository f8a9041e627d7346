"""The planned program: what templates, arena and verification need to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.backends.c.levels import Family
from qcompile.backends.c.names import (
    c_type,
    comment_text,
    double_literal,
    identifier,
    unique,
)
from qcompile.backends.c.program import (
    Kept,
    Kernel,
    Step,
)
from qcompile.backends.c.row_groups import RowLayout
from qcompile.graph import Graph
from qcompile.passes.place_planes import BitPlanes
from qcompile.passes.place_tensors import Placement
from qcompile.passes.plan_buffers import BufferPlan
from qcompile.types import FloatType, TensorType, q_format

WORK = "work"
"""Name of the memory that the variants of a step share."""


@dataclass(frozen=True)
class Layout:
    """The planned program: what the templates and the verification need to know."""

    entry: str
    graph: Graph
    steps: tuple[Step, ...]
    placements: Mapping[str, Placement]
    planes: Mapping[str, BitPlanes]
    release: BufferPlan
    debug: BufferPlan
    rows: RowLayout | None = None

    @property
    def taps(self) -> tuple[tuple[Step, str], ...]:
        """Every activation that lies in the arena, in order of production."""
        return tuple(
            (step, value)
            for step in self.steps
            for value in step.outputs
            if value not in self.graph.outputs
            and (self.rows is None or value not in self.rows.added)
        )

    @property
    def kept(self) -> tuple[tuple[int, Step, Kept], ...]:
        """What steps keep in builds with taps, with the number of the step."""
        return tuple(
            (index, step, kept)
            for index, step in enumerate(self.steps)
            for kept in step.kept
            if self.rows is None or step.op.output not in self.rows.added
        )

    @property
    def needs_math(self) -> bool:
        return any(item.needs_math for item in all_kernels(self.steps))


@dataclass(frozen=True)
class Port:
    """A public tensor: parameter of the entry function and macros of the header."""

    name: str
    macro: str
    value: str
    kind: TensorType

    @property
    def ctype(self) -> str:
        return c_type(self.kind.element)

    @property
    def shown_name(self) -> str:
        return comment_text(self.value, 60)

    @property
    def text(self) -> str:
        return type_text(self.kind)

    @property
    def scale(self) -> str | None:
        quantization = self.kind.quantization
        if quantization is None or not quantization.is_per_tensor:
            return None
        return double_literal(quantization.scale[0])


def value_name(value: str) -> str:
    """Buffer of an activation."""
    return f"value {value}"


def scratch_name(index: int, name: str) -> str:
    """Buffer of scratch memory `name` of step `index`."""
    return f"scratch {index} {name}"


def ports(layout: Layout, values: Sequence[str], role: str) -> list[Port]:
    """Parameters for the graph's inputs or outputs; `role` is 'input' or 'output'."""
    if len(values) == 1:
        names = [role]
    else:
        parts = [identifier(value) for value in values]
        names = unique(f"{role}_{part}" if part else role for part in parts)
    entry = layout.entry.upper()
    return [
        Port(name, f"{entry}_{name.upper()}", value, layout.graph.types[value])
        for name, value in zip(names, values, strict=True)
    ]


def type_text(kind: TensorType) -> str:
    """'u6[1,16,256,256] Q4.2': element, shape and format, for comments."""
    text = str(kind)
    quantization = kind.quantization
    if quantization is None or isinstance(kind.element, FloatType):
        return text
    if not quantization.is_per_tensor:
        return f"{text} scale per channel"
    fixed = q_format(kind.element, quantization.scale[0])
    return f"{text} {fixed}" if fixed else f"{text} scale {quantization.scale[0]:.6g}"


def all_kernels(steps: Sequence[Step]) -> list[Kernel]:
    """Every kernel once, each after the kernels it calls."""
    found: dict[str, Kernel] = {}

    def visit(item: Kernel) -> None:
        for required in item.requires:
            visit(required)
        known = found.setdefault(item.function, item)
        if known != item:
            raise ValueError(f"two kernels are named {item.function}")

    for step in steps:
        for item in step.all_kernels:
            visit(item)
    return list(found.values())


def families(steps: Sequence[Step]) -> list[str]:
    """The guards of the instruction sets that some step has a variant for."""
    used = {item.level.value.family for item in all_kernels(steps) if item.level is not None}
    return [family.value for family in Family if family in used]
