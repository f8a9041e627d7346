"""What the planners of all operators share: value types, placements, and copies between orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qcompile.backends.c.levels import Level
from qcompile.backends.c.names import c_type
from qcompile.backends.c.plane_codes import plan_packing, plan_unpacking
from qcompile.backends.c.program import Kernel, Pointer, Role, Step, kernel
from qcompile.graph import Graph, Op
from qcompile.ops import Concat
from qcompile.packing import TernaryPacking
from qcompile.passes.choose_kernels import KernelChoice
from qcompile.passes.fuse_attention import Attention
from qcompile.passes.place_planes import NO_PLANES, PlanePlan
from qcompile.passes.place_tensors import Placement, channels_last
from qcompile.types import Shape, TensorType

VIEW_RANK = 6
"""Loops of the strided kernels; more axes than this remain only in tensors nobody has."""


@dataclass(frozen=True)
class View:
    """A strided walk: sizes from the outermost loop inwards, and for each tensor its strides."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def collapsed(self, longest: int | None = None) -> View:
        """Without axes of size 1, neighbouring axes joined where every tensor allows.

        Args:
            longest: the innermost axis must not grow beyond this by joining.
        """
        axes: list[tuple[int, tuple[int, ...]]] = []
        steps = list(zip(*self.strides, strict=True)) if self.sizes else []
        for size, step in zip(reversed(self.sizes), reversed(steps), strict=True):
            if size == 1:
                continue
            if axes:
                inner, inner_step = axes[-1]
                joins = all(s == t * inner for s, t in zip(step, inner_step, strict=True))
                if joins and (longest is None or len(axes) > 1 or size * inner <= longest):
                    axes[-1] = (size * inner, inner_step)
                    continue
            axes.append((size, step))
        axes.reverse()
        sizes = tuple(size for size, _ in axes)
        strides = tuple(
            tuple(step[tensor] for _, step in axes) for tensor in range(len(self.strides))
        )
        return View(sizes, strides)

    def padded(self, rank: int) -> View:
        """With leading axes of size 1."""
        missing = rank - len(self.sizes)
        if missing < 0:
            raise ValueError(f"{len(self.sizes)} axes where {rank} are possible")
        return View(
            (1,) * missing + self.sizes, tuple((0,) * missing + step for step in self.strides)
        )


@dataclass(frozen=True)
class Context:
    """The graph and the decisions of the target passes; `keeps_attention` as in `CBackend`.

    With `keeps_scores`, builds with taps keep the tensors inside fused attention.
    """

    graph: Graph
    choices: Mapping[str, KernelChoice]
    placements: Mapping[str, Placement]
    ternary: TernaryPacking
    joined: Mapping[str, Concat]
    levels: tuple[Level, ...]
    planes: PlanePlan = field(default=NO_PLANES, kw_only=True)
    followers: Mapping[str, Op] = field(default_factory=dict, kw_only=True)
    attention: Mapping[str, Attention] = field(default_factory=dict, kw_only=True)
    keeps_attention: bool = field(default=False, kw_only=True)
    keeps_scores: bool = field(default=True, kw_only=True)

    def type(self, value: str) -> TensorType:
        return self.graph.types[value]

    def ctype(self, value: str) -> str:
        return c_type(self.graph.types[value].element)

    def strides(self, value: str) -> tuple[int, ...]:
        """Elements between neighbours along each logical axis, as `value` lies in memory."""
        return self.placements[value].strides(self.type(value).shape)

    def read(self, step: Step, name: str, value: str) -> str:
        """Pointer `name` to the codes of `value` in its own placement.

        A constant becomes a table; bit planes are unpacked before the step.
        """
        if self.graph.is_constant(value):
            data = self.graph.constants[value]
            return step.table(f"constant_{name}", self.ctype(value), data, Role.WEIGHTS)
        if value in self.planes.values:
            shape, layout = self.type(value).shape, self.planes.values[value]
            return plan_unpacking(step, name, value, self.ctype(value), shape, layout, self.levels)
        step.pointers.append(Pointer(self.ctype(value), name, value))
        return name

    def write(self, step: Step, name: str, value: str) -> str:
        """Pointer `name` to the codes of the output `value` in its own placement.

        They are packed after the step if the output lies in bit planes.
        """
        if value in self.planes.values:
            shape, layout = self.type(value).shape, self.planes.values[value]
            return plan_packing(step, name, value, self.ctype(value), shape, layout, self.levels)
        step.pointers.append(Pointer(self.ctype(value), name, value, writes=True))
        return name

    def read_as(self, step: Step, name: str, value: str, wanted: Placement) -> str:
        """Pointer `name` to `value` in placement `wanted`, copied first if it lies otherwise."""
        shape = self.type(value).shape
        if self.placements[value].same_memory(wanted, shape):
            return self.read(step, name, value)
        source = self.read(step, f"{name}_public", value)
        step.scratch(self.ctype(value), name, self.type(value).size)
        view = order_view(shape, self.placements[value], wanted)
        copy(step, self.ctype(value), source, name, view, step.before)
        return name

    def window(self, step: Step, name: str, value: str) -> str:
        """What kernels of windows take for the input `value`, which must lie channels-last."""
        return self.read_as(step, name, value, channels_last(self.type(value).rank))

    def stem(self, template: str) -> str:
        """The kernel template that takes such an input."""
        return template

    def write_as(self, step: Step, name: str, value: str, wanted: Placement) -> str:
        """Pointer `name` to the output in placement `wanted`, copied afterwards if need be."""
        shape = self.type(value).shape
        if self.placements[value].same_memory(wanted, shape):
            return self.write(step, name, value)
        target = self.write(step, f"{name}_public", value)
        step.scratch(self.ctype(value), name, self.type(value).size)
        view = order_view(shape, wanted, self.placements[value])
        copy(step, self.ctype(value), name, target, view, step.after)
        return name


def order_view(shape: Shape, source: Placement, target: Placement) -> View:
    """The walk that copies a tensor from one placement to another, in the order of the target."""
    order = target.order
    return View(
        tuple(shape[axis] for axis in order),
        (
            tuple(source.strides(shape)[axis] for axis in order),
            tuple(target.strides(shape)[axis] for axis in order),
        ),
    )


def copy_kernel(source: str, target: str) -> Kernel:
    """Kernel that copies elements along a walk, widening them where the types differ."""
    types = [source] if source == target else [source, target]
    return kernel("strided_copy", types, x=source, y=target)


def copy(
    step: Step,
    ctype: str,
    source: str,
    target: str,
    view: View,
    calls: list[str],
    offsets: Sequence[int] = (0, 0),
    source_ctype: str | None = None,
) -> None:
    """Adds a copy of the elements of `view` (strides: source, target) to `calls`."""
    flat = view.collapsed().padded(VIEW_RANK)
    function = step.use(copy_kernel(source_ctype or ctype, ctype))
    name = f"copy{sum(shape.struct == 'strided_copy_view' for shape in step.shapes)}"
    shown = step.shape(
        "strided_copy_view", name, size=flat.sizes, source=flat.strides[0], target=flat.strides[1]
    )
    places = [
        pointer if offset == 0 else f"{pointer} + {offset}"
        for pointer, offset in zip((source, target), offsets, strict=True)
    ]
    calls.append(f"{function}({shown}, {places[0]}, {places[1]});")
