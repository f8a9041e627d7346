"""One ONNX node with checked inputs and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import onnx
from onnx import AttributeProto

from qcompile.errors import ModelError, Unsupported, UnsupportedError
from qcompile.importer.schemas import SCHEMAS

IMPORTER = "the importer"

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | onnx.TensorProto


@dataclass(frozen=True, slots=True)
class Node:
    """An ONNX node of the default domain, or one of the few others in `SCHEMAS`.

    `name` is unique in the graph. An input that the model leaves out is the empty string. The
    protobuf is kept for the evaluation of constant nodes.
    """

    name: str
    operator: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    proto: onnx.NodeProto

    @property
    def output(self) -> str:
        return self.outputs[0]

    def label(self) -> str:
        return f"{self.operator} '{self.name}'"

    def input(self, index: int) -> str | None:
        """The value name of an input, None if it is left out."""
        return (self.inputs[index] or None) if index < len(self.inputs) else None

    def uses_output(self, index: int, readers: Mapping[str, int]) -> bool:
        """Whether somebody reads this output."""
        return index < len(self.outputs) and readers.get(self.outputs[index], 0) > 0

    def has(self, name: str) -> bool:
        return name in self.attributes

    def integer(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        assert isinstance(value, int), name
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return self.integer(name, int(default)) != 0

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.attributes.get(name, default)
        assert isinstance(value, tuple), name
        return tuple(int(item) for item in value)

    def real(self, name: str, default: float) -> float:
        value = self.attributes.get(name, default)
        assert isinstance(value, int | float), name
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        assert isinstance(value, str), name
        return value

    def refuse(self, reason: str, advice: str) -> NoReturn:
        """This node is well-formed, but we do not support what it asks for."""
        raise UnsupportedError([Unsupported(self.operator, self.name, reason, advice)], IMPORTER)

    def malformed(self, reason: str) -> NoReturn:
        """This node breaks the ONNX rules."""
        raise ModelError(f"{self.label()}: {reason}; export the model again")


def make_node(proto: onnx.NodeProto, name: str, opset: int) -> Node:
    """Checks `proto` against the ONNX schema of its operator.

    Raises:
        ModelError: wrong number of inputs or outputs, unknown, missing or mistyped attributes.
        UnsupportedError: the operator is of an unknown domain or has a sub-graph.
    """
    attributes: dict[str, Attribute] = {}
    node = Node(
        name, proto.op_type, opset, tuple(proto.input), tuple(proto.output), attributes, proto
    )
    if proto.domain not in ("", "ai.onnx"):
        _read_custom(node, attributes)
        return node
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "")
    except onnx.defs.SchemaError:
        node.refuse(f"no such operator in ONNX opset {opset}", "replace it by ONNX operators")
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        node.malformed(f"{len(node.inputs)} inputs do not fit the operator")
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        node.malformed(f"{len(node.outputs)} outputs do not fit the operator")
    for attribute in proto.attribute:
        expected = schema.attributes.get(attribute.name)
        if expected is None:
            node.malformed(f"unknown attribute '{attribute.name}' for opset {opset}")
        if expected.type != attribute.type:  # an IntEnum, though its stub does not say so
            node.malformed(f"attribute '{attribute.name}' has the wrong type")
        if attribute.name in attributes:
            node.malformed(f"attribute '{attribute.name}' stands there twice")
        attributes[attribute.name] = _value(node, attribute)
    for required, definition in schema.attributes.items():
        if definition.required and required not in attributes:
            node.malformed(f"attribute '{required}' is missing")
    return node


def _read_custom(node: Node, attributes: dict[str, Attribute]) -> None:
    """The attributes of an operator outside of ONNX, if we know it."""
    proto = node.proto
    schema = SCHEMAS.get((proto.domain, node.operator))
    if schema is None:
        node.refuse(
            f"operator of the domain '{proto.domain}'",
            "export with standard ONNX operators only (no fused or custom operators)",
        )
    if not schema.inputs[0] <= len(node.inputs) <= schema.inputs[1] or len(node.outputs) != 1:
        node.malformed(f"{len(node.inputs)} inputs do not fit the operator")
    for attribute in proto.attribute:
        expected = schema.attributes.get(attribute.name)
        if expected is not None and expected != attribute.type:
            node.malformed(f"attribute '{attribute.name}' has the wrong type")
        if expected is not None:
            attributes[attribute.name] = _value(node, attribute)


def _value(node: Node, attribute: onnx.AttributeProto) -> Attribute:
    if attribute.ref_attr_name:
        node.malformed(f"attribute '{attribute.name}' refers to a function's parameter")
    match attribute.type:
        case AttributeProto.INT:
            return int(attribute.i)
        case AttributeProto.FLOAT:
            return float(attribute.f)
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", errors="replace")
        case AttributeProto.INTS:
            return tuple(attribute.ints)
        case AttributeProto.FLOATS:
            return tuple(attribute.floats)
        case AttributeProto.TENSOR:
            return attribute.t
        case AttributeProto.GRAPH | AttributeProto.GRAPHS:
            node.refuse(
                "control flow with sub-graphs", "export the network for one fixed path of execution"
            )
        case _:
            node.refuse(
                f"attribute '{attribute.name}' of a kind that is not supported",
                "use tensors, numbers and strings only",
            )
