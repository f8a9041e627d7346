"""The graph under construction: what the converters read from and write to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.errors import ModelError
from qcompile.graph import Graph, Op, Stage, live_ops
from qcompile.importer.codes import CodeFormat, channel_scales
from qcompile.importer.names import Names
from qcompile.importer.node import Node
from qcompile.importer.tensors import MAX_WEIGHT_BYTES, TensorReader
from qcompile.ops.max_pool_index import MaxPoolIndex
from qcompile.ops.reshape import Reshape
from qcompile.types import (
    FLOAT32,
    Array,
    Element,
    Quantization,
    Rounding,
    Shape,
    TensorType,
)

MAX_ELEMENTS = 1 << 28
"""Most elements of a tensor: 1 GiB as float32; hostile shapes end here."""

MAX_SIZE = 1 << 31
"""Attributes beyond this are damaged; below it the elements of their result are counted."""


@dataclass(frozen=True, slots=True)
class PoolIndices:
    """Indices of a MaxPool: an ONNX value whose numbers nobody computes.

    Attributes:
        pool: what the graph has instead.
        shape: of the tensor that was pooled, in which ONNX counts positions.
        offsets: how much higher the value's numbers are; broadcasts to the indices' shape.
    """

    pool: MaxPoolIndex
    shape: Shape
    offsets: Array


class Builder:
    """Maps ONNX values to values of the graph, or to known data.

    Every ONNX value that has been reached is either known data (initialisers, shapes, whatever is
    computed from them) or a computed value of the graph. Names of ONNX values are kept; names for
    anything new never collide with them.
    """

    def __init__(
        self,
        reserved: set[str],
        node_names: set[str],
        readers: Mapping[str, int],
        reader: TensorReader,
    ) -> None:
        """
        Args:
            reserved: all value names of the ONNX graph.
            node_names: all operator names of the ONNX graph.
            readers: ONNX value -> how many nodes and graph outputs read it.
            reader: reads tensors that lie in attributes.
        """
        self.readers = readers
        self.reader = reader
        self.folded_elements = 0
        self.ops: list[Op] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self._values: dict[str, str] = {}
        self._data: dict[str, Array] = {}
        self.codes: dict[str, CodeFormat] = {}
        """ONNX values of codes that are computed at run time; the graph has their real numbers."""
        self.scales: dict[str, Array] = {}
        """Known data that lie on a grid: the scale of every element, of the data's shape."""
        self.input_codes: dict[str, tuple[int, int]] = {}
        """Network inputs of integers: the least and the greatest number of their type."""
        self.never: dict[str, Shape] = {}
        """ONNX values of conditions that hold for no element, and their shapes."""
        self.indices: dict[str, PoolIndices] = {}
        """ONNX values that are indices of a MaxPool."""
        self._pixels: set[str] = set()
        self._names = Names(reserved)
        self._op_names = Names(node_names)
        self._constant_bytes = 0

    # Reading

    def knows(self, value: str) -> bool:
        return value in self._values or value in self._data or value in self.never

    def data(self, value: str | None) -> Array | None:
        """The data of a value that is known at compile time, else None."""
        return self._data.get(value) if value is not None else None

    def required(self, node: Node, index: int, what: str) -> Array:
        """The data of an input that must be known at compile time.

        Raises:
            UnsupportedError: it is computed at run time.
        """
        value = node.input(index)
        if value is None:
            node.malformed(f"{what} (input {index}) is missing")
        data = self.data(value)
        if data is None:
            node.refuse(
                f"{what} '{value}' is computed at run time",
                "it must be a constant; export with fixed shapes, or run onnxsim",
            )
        return data

    def optional(self, node: Node, index: int, what: str) -> Array | None:
        """Like `required`, None if the input is left out."""
        return None if node.input(index) is None else self.required(node, index, what)

    def integers(self, node: Node, index: int, what: str) -> tuple[int, ...] | None:
        """An optional constant input of integers, as a tuple."""
        data = self.optional(node, index, what)
        if data is None:
            return None
        if data.ndim > 1 or data.dtype.kind not in "iu":
            node.malformed(
                f"{what} must be a vector of integers, not {data.dtype}{list(data.shape)}"
            )
        return tuple(int(item) for item in data.reshape(-1))

    def scalar(self, node: Node, index: int, what: str) -> float | None:
        """An optional constant input of one number."""
        data = self.optional(node, index, what)
        if data is None:
            return None
        if data.size != 1:
            node.malformed(f"{what} must be one number, not an array of shape {list(data.shape)}")
        return float(data.reshape(-1)[0])

    def source(self, node: Node, index: int = 0) -> str:
        """The graph value of an input that is computed at run time, of real numbers.

        Raises:
            UnsupportedError: it is constant, or holds integers (class indices, raw pixels).
        """
        value = self.movable(node, index)
        if not self.types[value].is_float or value in self._pixels:
            node.refuse(
                f"arithmetic on integer values ('{value}')",
                "cast integer inputs to float first, and let the class map (ArgMax) be the output",
            )
        return value

    def movable(self, node: Node, index: int = 0) -> str:
        """Like `source`, for operators that only move elements: integers may pass."""
        value = node.input(index)
        if value is None:
            node.malformed(f"input {index} is missing")
        if value in self.never:
            node.refuse(f"a condition, '{value}', that no Where reads", "leave it out")
        if value in self._data:
            node.refuse(
                f"input '{value}' is a constant where a computed value is expected",
                "fold constants first, for example with onnxsim",
            )
        return self._values[value]

    def is_pixels(self, value: str) -> bool:
        """Whether a graph value stands for integers that the model receives (uint8 images)."""
        return value in self._pixels

    def shape(self, value: str) -> Shape:
        """Shape of a graph value."""
        return self.types[value].shape

    def shape_of(self, node: Node, index: int) -> Shape:
        """Shape of an input of either sort."""
        value = node.input(index)
        if value is None:
            node.malformed(f"input {index} is missing")
        if value in self.never:
            return self.never[value]
        data = self._data.get(value)
        return data.shape if data is not None else self.shape(self._values[value])

    # Writing

    def fresh(self, base: str) -> str:
        """A new value name made from `base`."""
        return self._names.fresh(base)

    def part(self, node: Node, role: str) -> tuple[str, str]:
        """Operator name and value name for an extra operator that `node` needs."""
        return self.part_name(node, role), self.fresh(f"{node.output}.{role}")

    def part_name(self, node: Node, role: str) -> str:
        """Operator name for an extra operator that `node` needs."""
        return self._op_names.fresh(f"{node.name}.{role}")

    def constant(self, node: Node, base: str, data: Array) -> str:
        """Adds float data as a constant of the graph and returns its name.

        Each use gets its own name, so that passes may change the weights of one operator alone.

        Raises:
            ModelError: the data holds NaN or infinities (also by the cast to float32).
        """
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.ascontiguousarray(data, dtype=np.float32)
        if not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            raise ModelError(
                f"{node.label()}: constant '{base}' has {count} value(s) that are NaN or infinite; "
                f"check the training or the export"
            )
        self._constant_bytes += array.nbytes
        if self._constant_bytes > MAX_WEIGHT_BYTES:
            raise ModelError(
                f"{node.label()}: the constants of the network exceed the limit of "
                f"{MAX_WEIGHT_BYTES} bytes; use a smaller network"
            )
        if array.size == 0:
            node.malformed(f"constant '{base}' of shape {list(array.shape)} is empty")
        name = base if base in self._data and base not in self.constants else self.fresh(base)
        self.constants[name] = array.reshape(np.shape(data))
        self.types[name] = TensorType(tuple(np.shape(data)))
        return name

    def weights(
        self,
        node: Node,
        base: str,
        data: Array,
        axis: int,
        groups: int = 1,
        scales: Array | None = None,
    ) -> str:
        """`constant` for a vector or matrix of weights, which may lie on a grid.

        Args:
            node: reads them.
            base: their ONNX name.
            data: the real numbers.
            axis: output channels (within a group, if there are several).
            groups: that lie one after another on axis 0.
            scales: the scale of every element; None if the numbers are on no grid.

        Raises:
            UnsupportedError: weights of one output channel have different scales.
        """
        name = self.constant(node, base, data)
        if scales is None:
            return name
        vector = channel_scales(scales, axis, groups)
        if vector is None:
            node.refuse(
                f"'{base}' has different scales within an output channel",
                f"quantise it per tensor, or along axis {axis}",
            )
        kind = Quantization(vector, axis, Rounding.HALF_EVEN)
        self.types[name] = TensorType(data.shape, FLOAT32, kind)
        return name

    def emit(self, op: Op, element: Element = FLOAT32) -> None:
        """Adds an operator; its output's shape is inferred and checked.

        Raises:
            ShapeError: the input shapes do not fit.
            ModelError: the output would be unreasonably large.
        """
        shape = op.infer_shape([self.types[value].shape for value in op.inputs])
        kind = TensorType(shape, element)
        check_size(kind, op.label())
        self.ops.append(op)
        self.types[op.output] = kind
        self._values.setdefault(op.output, op.output)

    def move(self, op: Op) -> None:
        """`emit` for an operator that only moves elements: the element type passes through."""
        self.emit(op, self.types[op.inputs[0]].element)
        if op.inputs[0] in self._pixels:
            self._pixels.add(op.output)

    def alias(self, onnx_value: str, value: str) -> None:
        """An ONNX value is the same as an existing graph value."""
        self._values[onnx_value] = value

    def know(self, onnx_value: str, data: Array) -> None:
        """The data of an ONNX value is known."""
        self._data[onnx_value] = data

    def add_input(self, name: str, kind: TensorType, integers: tuple[int, int] | None) -> None:
        self.types[name] = kind
        self._values[name] = name
        if integers is not None:
            self._pixels.add(name)
            self.input_codes[name] = integers

    def release_pixels(self, value: str) -> None:
        """A network input stands for real numbers from now on."""
        self._pixels.discard(value)

    def add_phantom(self, name: str, shape: Shape) -> None:
        """A value that an unsupported node would write: later nodes can still be checked."""
        self.types[name] = TensorType(shape)
        self._values[name] = name

    def finish(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        """The graph; its outputs have the names that the ONNX model gives them.

        Raises:
            ModelError: an output is a constant or an input.
        """
        for output in outputs:
            if output in self._data:
                raise ModelError(
                    f"graph output '{output}' is a constant: it does not depend on any input; "
                    f"remove it from the outputs"
                )
            if output in self.indices:
                raise ModelError(
                    f"graph output '{output}' has indices of a MaxPool, which are for MaxUnpool "
                    f"alone; remove it from the outputs"
                )
            if output in inputs:
                raise ModelError(
                    f"graph output '{output}' is also a graph input: there is nothing to compile; "
                    f"remove it from the outputs"
                )
        self._name_outputs(inputs, outputs)
        ops = live_ops(self.ops, outputs)
        used = {value for op in ops for value in (*op.inputs, *op.outputs)}
        used |= set(inputs) | set(outputs)
        types = {value: kind for value, kind in self.types.items() if value in used}
        constants = {value: data for value, data in self.constants.items() if value in used}
        return Graph(name, Stage.FLOAT, inputs, outputs, ops, types, constants)

    def _name_outputs(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """Makes every output that is another name of a value a value of its own.

        The value takes the output's name; where it is an input or has another output's name
        already, a copy does.
        """
        fixed = set(inputs) | set(outputs)
        renamed: dict[str, str] = {}
        copies: list[tuple[str, str]] = []
        for output in outputs:
            value = self._values[output]
            if value in renamed or (value in fixed and value != output):
                copies.append((output, value))
            elif value != output:
                renamed[value] = output
        self.ops = [_renamed(op, renamed) for op in self.ops]
        for value, output in renamed.items():
            self.types[output] = self.types.pop(value)
        for output, value in copies:
            source = renamed.get(value, value)
            name = self._op_names.fresh(f"{output}.copy")
            shape = self.shape(source)
            self.move(Reshape(name=name, inputs=(source,), outputs=(output,), shape=shape))


def check_size(kind: TensorType, where: str) -> None:
    """Raises ModelError if a tensor has more than `MAX_ELEMENTS` elements."""
    if kind.size > MAX_ELEMENTS:
        raise ModelError(
            f"{where}: a tensor of shape {list(kind.shape)} has {kind.size} elements, the limit is "
            f"{MAX_ELEMENTS}; check --input-shape and the model's shapes"
        )


def _renamed(op: Op, names: Mapping[str, str]) -> Op:
    if names.keys().isdisjoint((*op.inputs, *op.outputs)):
        return op
    return dataclasses.replace(
        op,
        inputs=tuple(names.get(value, value) for value in op.inputs),
        outputs=tuple(names.get(value, value) for value in op.outputs),
    )
