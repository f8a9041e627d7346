"""Collects the nodes and initialisers of one ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.importer.names import Names
from qcompile.types import Array, Shape

LOWEST_OPSET = 17
"""What most tools read; models with 16-bit or INT4 tensors need `WIDE_OPSET`."""

WIDE_OPSET = 21

IR_VERSIONS = {LOWEST_OPSET: 8, WIDE_OPSET: 10}
"""Opset -> the IR version that came with it, so that no newer reader than needed is asked for."""


class Writer:
    """Nodes in the order they are added, initialisers, and the opset that they need."""

    def __init__(self, reserved: Iterable[str], opset: int = LOWEST_OPSET) -> None:
        """
        Args:
            reserved: names of values that only their own operator may write.
            opset: the lowest to declare.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.domains: set[str] = set()
        self.opset = opset
        self._values = Names(reserved)
        self._names = Names(())

    def fresh(self, base: str) -> str:
        """A name for a new value."""
        return self._values.fresh(base)

    def need(self, opset: int) -> None:
        """Declares that a node exists, or takes a type, only from this opset on."""
        if opset > self.opset:
            self.opset = WIDE_OPSET

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Adds a node with one output; returns the output."""
        node = helper.make_node(
            operator,
            list(inputs),
            [output],
            self._names.fresh(name),
            domain=domain or None,
            **attributes,
        )
        self.nodes.append(node)
        if domain:
            self.domains.add(domain)
        return output

    def constant(self, base: str, data: Array) -> str:
        """An initialiser with the data of an array."""
        return self._initializer(numpy_helper.from_array(np.ascontiguousarray(data)), base, data)

    def int4_constant(self, base: str, data: Array) -> str:
        """An initialiser of element type INT4: two codes a byte."""
        self.need(WIDE_OPSET)
        flat = data.astype(np.int64).ravel().tolist()
        return self._initializer(
            helper.make_tensor("", TensorProto.INT4, data.shape, flat), base, data
        )

    def _initializer(self, tensor: TensorProto, base: str, data: Array) -> str:
        tensor.name = self.fresh(base)
        del tensor.dims[:]
        tensor.dims.extend(np.shape(data))
        self.initializers.append(tensor)
        return tensor.name


def value_info(name: str, element: int, shape: Shape) -> onnx.ValueInfoProto:
    """The declared type of a value."""
    return helper.make_tensor_value_info(name, element, list(shape))
