"""What the function that exports one operator sees of graph and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompile.exporter.writer import Writer
from qcompile.graph import Graph, Op
from qcompile.lowering.islands import stays_float
from qcompile.types import Array, Shape, TensorType, per_channel

if TYPE_CHECKING:
    from qcompile.exporter.dialect import Dialect


@dataclass(frozen=True)
class Scope:
    """One operator of the quantized graph on its way into the model.

    `reals` says under which name the model has the real number of each value; `floats` has the
    name before rounding of those that operators which stay float hand on to one another.
    """

    graph: Graph
    op: Op
    writer: Writer
    dialect: Dialect
    reals: dict[str, str]
    floats: dict[str, str]

    @property
    def kind(self) -> TensorType:
        """Type of the operator's output."""
        return self.graph.output_type(self.op)

    def input_type(self, index: int = 0) -> TensorType:
        return self.graph.types[self.op.inputs[index]]

    def shape(self, index: int = 0) -> Shape:
        """Shape of an input."""
        return self.input_type(index).shape

    def real(self, index: int = 0) -> str:
        """The model's float value of an input; constants become float32 initialisers."""
        value = self.op.inputs[index]
        if not self.graph.is_constant(value):
            found = self.reals[value]
            return self.floats.get(value, found) if stays_float(self.graph, self.op) else found
        data = real_numbers(self.graph.constants[value], self.graph.types[value])
        return self.writer.constant(value, data)

    def parameter(self, index: int) -> Array | None:
        """The real numbers of a constant; None where the operator has no such input."""
        if len(self.op.inputs) <= index:
            return None
        value = self.op.inputs[index]
        return real_numbers(self.graph.constants[value], self.graph.types[value])

    def weights(self) -> str:
        """The model's float value of the second input: codes times their scales."""
        value = self.op.inputs[1]
        kind = self.graph.types[value]
        if kind.is_float:
            return self.real(1)
        return self.dialect.weights(self, value, self.graph.constants[value], kind)

    def bias(self, index: int = 2) -> str | None:
        """The model's float value of the bias, None without one."""
        if len(self.op.inputs) <= index:
            return None
        value = self.op.inputs[index]
        data, kind = self.graph.constants[value], self.graph.types[value]
        return self.dialect.bias(self, value, data, kind)

    def node(self, operator: str, *inputs: str, part: str = "", **attributes: Any) -> str:
        """Adds a node. The one without `part` bears the operator's own name; the others are
        '<operator>/<part>'. Returns the name of its output."""
        base = self.op.output
        output = self.writer.fresh(f"{base}.{part or operator.lower()}")
        name = f"{self.op.name}/{part}" if part else self.op.name
        return self.writer.add(operator, inputs, output, name, **attributes)

    def constant(self, part: str, data: Any, dtype: str = "float32") -> str:
        """An initialiser of the operator."""
        return self.writer.constant(f"{self.op.name}.{part}", np.asarray(data, dtype=dtype))

    def by_channel(self, part: str, values: Sequence[float], axis: int, rank: int) -> str:
        """Per-channel constants shaped to broadcast along `axis`."""
        return self.constant(part, per_channel(values, "float32", axis, rank))


def real_numbers(data: Array, kind: TensorType) -> Array:
    """A constant as float32: what its codes stand for, where it has codes."""
    if kind.is_float or kind.quantization is None:
        return data.astype(np.float32)
    return np.asarray(data.astype(np.float32) * kind.quantization.factors(data.shape))
