"""The importer: reads an ONNX file and converts its nodes one after the other."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from qcompile.errors import ModelError, ShapeError, Unsupported, UnsupportedError
from qcompile.graph import Graph
from qcompile.importer.builder import Builder, check_size
from qcompile.importer.folding import fold, fold_scales, is_foldable
from qcompile.importer.functions import inline_functions
from qcompile.importer.inputs import dimensions, resolve_inputs
from qcompile.importer.names import Names
from qcompile.importer.node import IMPORTER, make_node
from qcompile.importer.operators.pool_indices import convert_indices
from qcompile.importer.operators.quantize import convert_codes
from qcompile.importer.protobuf import check_text, opset_version, read_model
from qcompile.importer.table import ADVICE, CONVERTERS, DEFAULT_ADVICE, QUANTIZED
from qcompile.importer.tensors import TensorReader
from qcompile.types import Shape, TensorType

NO_SHAPES: Mapping[str, Shape] = {}

NOT_SUPPORTED = "this operator is not supported"


def import_model(path: Path, input_shapes: Mapping[str, Shape] = NO_SHAPES) -> Graph:
    """Reads an ONNX model as a graph of stage FLOAT.

    Args:
        path: the .onnx file; external data is only read from its folder.
        input_shapes: values of dynamic axes, as complete shapes by input name.

    Raises:
        ModelError: the file is damaged, inconsistent or unsafe.
        UsageError: `input_shapes` contradicts the model, or a dynamic axis has no value.
        UnsupportedError: lists every node that cannot be imported.
    """
    path = Path(path)
    return convert_model(read_model(path), path.parent, input_shapes)


def declared_shapes(path: Path) -> dict[str, tuple[int | None, ...]]:
    """The shape of every network input as the file says it, None for dynamic axes.

    Inputs of unknown rank are left out.

    Raises:
        ModelError: the file is damaged or unsafe.
    """
    proto = read_model(Path(path)).graph
    initialisers = {item.name for item in proto.initializer}
    result: dict[str, tuple[int | None, ...]] = {}
    for value in proto.input:
        sizes = None if value.name in initialisers else dimensions(value)
        if sizes is not None:
            result[value.name] = tuple(None if isinstance(size, str) else size for size in sizes)
    return result


def convert_model(
    model: onnx.ModelProto,
    folder: Path,
    input_shapes: Mapping[str, Shape] = NO_SHAPES,
    batch_one: bool = True,
) -> Graph:
    """`import_model` for a parsed model.

    Args:
        model: the parsed file.
        folder: where external data lies.
        input_shapes: values of dynamic axes, as complete shapes by input name.
        batch_one: refuse batches above 1; operator tests lift this, nothing after the float
            executor supports it.
    """
    opset = opset_version(model)
    model = inline_functions(model)
    proto = model.graph
    check_text(proto)
    if proto.sparse_initializer:
        name = proto.sparse_initializer[0].values.name
        raise ModelError(f"sparse initialiser '{name}' is not supported; export with dense weights")
    outputs = tuple(value.name for value in proto.output)
    if not outputs or len(set(outputs)) != len(outputs) or not all(outputs):
        raise ModelError(f"the graph outputs {list(outputs)[:9]} must be named, each once")
    initialisers = _unique([item.name for item in proto.initializer], "initialiser")
    declared = [value for value in proto.input if value.name not in initialisers]
    inputs = _unique([value.name for value in declared], "graph input")
    names = node_names(proto.node)
    order = _live_order(proto, names, initialisers | inputs)

    readers = Counter(value for index in order for value in proto.node[index].input)
    readers.update(outputs)
    reserved = initialisers | inputs
    reserved.update(value for node in proto.node for value in node.output)
    reader = TensorReader(folder)
    builder = Builder(reserved, set(names), readers, reader)
    for tensor in proto.initializer:
        builder.know(tensor.name, reader.read(tensor, f"initialiser '{tensor.name}'"))
    for item in resolve_inputs(declared, input_shapes, batch_one):
        kind = TensorType(item.shape)
        check_size(kind, f"input '{item.name}'")
        builder.add_input(item.name, kind, item.integers)

    declared_shapes = _declared_shapes(proto)
    unsupported: list[Unsupported] = []
    for index in order:
        node_proto = proto.node[index]
        if any(value and not builder.knows(value) for value in node_proto.input):
            unsupported.extend(_unknown_operator(node_proto, names[index], opset))
            continue  # depends on a node that is not supported
        try:
            _convert_node(node_proto, names[index], opset, builder)
        except UnsupportedError as error:
            unsupported.extend(error.items)
        except ShapeError:
            if not unsupported:
                raise
        for value in node_proto.output:
            if value in declared_shapes and not builder.knows(value):
                builder.add_phantom(value, declared_shapes[value])
    if unsupported:
        raise UnsupportedError(unsupported, IMPORTER)
    return builder.finish(proto.name or "model", tuple(v.name for v in declared), outputs)


def _convert_node(proto: onnx.NodeProto, name: str, opset: int, builder: Builder) -> None:
    node = make_node(proto, name, opset)
    if is_foldable(node, builder):
        fold(node, builder)
        fold_scales(node, builder)
        return
    converter = CONVERTERS.get(node.operator)
    if converter is None:
        node.refuse(NOT_SUPPORTED, ADVICE.get(node.operator, DEFAULT_ADVICE))
    if any(value in builder.indices for value in node.inputs):
        convert_indices(node, builder)
    elif node.operator not in QUANTIZED and any(value in builder.codes for value in node.inputs):
        convert_codes(node, builder, converter)
    else:
        converter(node, builder)
    for index, value in enumerate(node.outputs):
        if value and not builder.knows(value) and node.uses_output(index, builder.readers):
            node.refuse(f"output {index} ('{value}') is used", "only the main output is supported")


def _unknown_operator(proto: onnx.NodeProto, name: str, opset: int) -> tuple[Unsupported, ...]:
    """What can be said about a node without the shapes of its inputs."""
    try:
        node = make_node(proto, name, opset)
        if node.operator not in CONVERTERS and node.operator != "Constant":
            node.refuse(NOT_SUPPORTED, ADVICE.get(node.operator, DEFAULT_ADVICE))
    except UnsupportedError as error:
        return error.items
    return ()


def _unique(names: Sequence[str], what: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        if not name:
            raise ModelError(f"a {what} has no name; export the model again")
        if name in found:
            raise ModelError(f"{what} '{name}' is defined twice; export the model again")
        found.add(name)
    return found


def node_names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """A unique name for each node: its own, or '<OpType>_<index>'."""
    given = Names(node.name for node in nodes)
    used: set[str] = set()
    result = []
    for index, node in enumerate(nodes):
        name = node.name
        if not name or name in used:
            name = given.fresh(name or f"{node.op_type}_{index}")
        used.add(name)
        result.append(name)
    return result


def _live_order(proto: onnx.GraphProto, names: Sequence[str], known: set[str]) -> list[int]:
    """The nodes that some output depends on, in topological order, as indices.

    Raises:
        ModelError: a value has two producers or none, or nodes form a cycle.
    """
    producer: dict[str, int] = {}
    for index, node in enumerate(proto.node):
        for value in node.output:
            if value and (value in producer or value in known):
                raise ModelError(
                    f"{node.op_type} '{names[index]}': value '{value}' has a second producer; "
                    f"each value needs exactly one"
                )
            if value:
                producer[value] = index
    live: set[int] = set()
    waiting = [value.name for value in proto.output]
    for value in waiting:
        if value not in producer and value not in known:
            raise ModelError(
                f"graph output '{value}' is written by no node; export the model again"
            )
    pending = [producer[value] for value in waiting if value in producer]
    while pending:
        index = pending.pop()
        if index in live:
            continue
        live.add(index)
        for value in proto.node[index].input:
            if value in producer:
                pending.append(producer[value])
            elif value and value not in known:
                raise ModelError(
                    f"{proto.node[index].op_type} '{names[index]}': reads value '{value}' that "
                    f"nothing writes; export the model again"
                )
    sources = {
        index: {producer[value] for value in proto.node[index].input if value in producer}
        for index in live
    }
    readers: dict[int, list[int]] = {index: [] for index in live}
    for index, needed in sources.items():
        for source in needed:
            readers[source].append(index)
    counts = {index: len(needed) for index, needed in sources.items()}
    ready = [index for index, count in counts.items() if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in readers[index]:
            counts[follower] -= 1
            if counts[follower] == 0:
                heapq.heappush(ready, follower)
    if len(order) < len(live):
        stuck = min(index for index, count in counts.items() if count > 0)
        raise ModelError(
            f"{proto.node[stuck].op_type} '{names[stuck]}': depends on its own output through a "
            f"cycle; a network must be acyclic"
        )
    return order


def _declared_shapes(proto: onnx.GraphProto) -> dict[str, Shape]:
    """Static shapes that the model itself states; only used to go on after unsupported nodes."""
    result: dict[str, Shape] = {}
    for value in (*proto.value_info, *proto.output):
        if value.type.WhichOneof("value") != "tensor_type":
            continue
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value for dim in dims)
        if shape and all(size > 0 for size in shape):
            result[value.name] = shape
    return result
