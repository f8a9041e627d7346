"""One row of each tensor, seen as a tensor of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.backends.c.context import Context, View, copy
from qcompile.backends.c.program import Pointer, Step
from qcompile.passes.place_tensors import Placement
from qcompile.types import TensorType

ROW_KERNELS = {
    "max_pool": "max_pool_rows",
    "average_pool": "average_pool_rows",
    "nearest_resize": "nearest_resize_rows",
    "linear_resize": "linear_resize_rows",
}
"""The kernels of windows, and those that compute one row."""


@dataclass(frozen=True)
class RowContext(Context):
    """The context of a step that computes row `row` of its output.

    Attributes:
        axes: value -> its axis of rows, for the values that the step takes row by row.
        held: value -> how many of its rows are in memory, as C; row i lies at place i modulo that.
    """

    axes: Mapping[str, int]
    held: Mapping[str, str]

    def type(self, value: str) -> TensorType:
        """Of one row."""
        kind = self.graph.types[value]
        if value not in self.axes:
            return kind
        axis = self.axes[value]
        return dataclasses.replace(kind, shape=(*kind.shape[:axis], 1, *kind.shape[axis + 1 :]))

    def strides(self, value: str) -> tuple[int, ...]:
        """As in the whole tensor."""
        return self.placements[value].strides(self.graph.types[value].shape)

    def read(self, step: Step, name: str, value: str) -> str:
        """Pointer to row `row` of `value`."""
        if self.graph.is_constant(value):
            return super().read(step, name, value)
        step.pointers.append(Pointer(self.ctype(value), name, value, place=self._place(value)))
        return name

    def write(self, step: Step, name: str, value: str) -> str:
        """Pointer to row `row` of the output."""
        place = self._place(value)
        step.pointers.append(Pointer(self.ctype(value), name, value, writes=True, place=place))
        return name

    def read_ring(self, step: Step, name: str, value: str) -> str:
        """Pointer to all rows of `value` that are held, and how many: two arguments in C."""
        step.pointers.append(Pointer(self.ctype(value), name, value))
        return f"{name}, {self.held[value]}"

    def window(self, step: Step, name: str, value: str) -> str:
        """The row of the output, and the held rows of the input."""
        return f"row, {self.read_ring(step, name, value)}"

    def stem(self, template: str) -> str:
        """The kernel template for rows."""
        return ROW_KERNELS[template]

    def read_as(self, step: Step, name: str, value: str, wanted: Placement) -> str:
        """Pointer to row `row`, copied first if it lies otherwise than `wanted`."""
        if self._lies(value, wanted):
            return self.read(step, name, value)
        source = self.read(step, f"{name}_public", value)
        step.scratch(self.ctype(value), name, self.type(value).size)
        target = wanted.strides(self.type(value).shape)
        view = self._view(value, wanted, self.strides(value), target)
        copy(step, self.ctype(value), source, name, view, step.before)
        return name

    def write_as(self, step: Step, name: str, value: str, wanted: Placement) -> str:
        """Pointer to row `row` of the output, copied afterwards if it lies otherwise."""
        if self._lies(value, wanted):
            return self.write(step, name, value)
        target = self.write(step, f"{name}_public", value)
        step.scratch(self.ctype(value), name, self.type(value).size)
        source = wanted.strides(self.type(value).shape)
        view = self._view(value, self.placements[value], source, self.strides(value))
        copy(step, self.ctype(value), name, target, view, step.after)
        return name

    def _place(self, value: str) -> str:
        if value not in self.axes:
            return ""
        stride = self.strides(value)[self.axes[value]]
        row = f"row % {self.held[value]}" if self.is_ring(value) else "row"
        return f"{row} * {stride}"

    def is_ring(self, value: str) -> bool:
        """Whether perhaps only some rows of `value` are in memory."""
        return value not in (*self.graph.inputs, *self.graph.outputs)

    def _lies(self, value: str, wanted: Placement) -> bool:
        return self.placements[value].same_memory(wanted, self.graph.types[value].shape)

    def _view(
        self, value: str, order: Placement, source: tuple[int, ...], target: tuple[int, ...]
    ) -> View:
        shape = self.type(value).shape
        return View(
            tuple(shape[axis] for axis in order.order),
            (
                tuple(source[axis] for axis in order.order),
                tuple(target[axis] for axis in order.order),
            ),
        )
