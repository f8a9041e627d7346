"""The exported model: nodes, inputs and outputs, names, types and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import Unsupported, UnsupportedError
from qcompile.exporter.activation import emit_activation
from qcompile.exporter.boundary import emit_input
from qcompile.exporter.dialect import Dialect
from qcompile.exporter.qdq import Qcdq, Qdq
from qcompile.exporter.qonnx import Qonnx
from qcompile.exporter.quant_functions import with_functions
from qcompile.exporter.scope import Scope
from qcompile.exporter.table import EMITTERS
from qcompile.exporter.writer import IR_VERSIONS, LOWEST_OPSET, Writer, value_info
from qcompile.graph import Graph, Op
from qcompile.lowering.islands import stays_float
from qcompile.ops import MOVEMENT, SumOp
from qcompile.passes.imported_formats import is_ternary
from qcompile.types import CodebookKind, TensorType

PRODUCER = "qcompile"
ADVICE = "use another --quantizer for activations, such as fixed, or --abits 32"

DIALECTS: Mapping[str, type[Dialect]] = {"qdq": Qdq, "qcdq": Qcdq, "qonnx": Qonnx}


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX model of a quantized graph.

    Attributes:
        graph: the quantized graph.
        proto: the model.
        reals: value of the graph -> value of the model with its real numbers.
        unrounded: value of the graph -> value of the model before its quantizer, where it has one.
        pixel_inputs: the inputs that take uint8.
    """

    graph: Graph
    proto: onnx.ModelProto
    reals: Mapping[str, str]
    unrounded: Mapping[str, str]
    pixel_inputs: frozenset[str] = frozenset()

    def content(self) -> bytes:
        """The file: the same bytes for the same model."""
        return bytes(self.proto.SerializeToString(deterministic=True))

    def constant_bytes(self) -> int:
        """Data of all initialisers."""
        return sum(_data_bytes(item) for item in self.proto.graph.initializer)

    def layer_bytes(self) -> dict[str, int]:
        """Operator -> data of the weights and biases that it reads, scales included."""
        sizes = {item.name: _data_bytes(item) for item in self.proto.graph.initializer}
        made = {node.output[0]: node for node in self.proto.graph.node}
        result = {}
        for op in self.graph.ops:
            total, waiting = 0, [made[op.output]]
            while waiting:
                for name in waiting.pop().input:
                    total += sizes.get(name, 0)
                    if name in made and name not in self._values:
                        waiting.append(made[name])
            result[op.name] = total
        return result

    @property
    def _values(self) -> frozenset[str]:
        return frozenset(self.reals.values())


def export_model(
    graph: Graph,
    specs: Mapping[str, InputSpec],
    dialect: str,
    metadata: Mapping[str, str],
    *,
    pixels: bool = False,
    int4: bool = False,
    version: str = "",
) -> ExportedModel:
    """A graph of stage QUANTIZED as an ONNX model.

    Args:
        graph: the graph; its operators keep their names, its values too.
        specs: what the pixels of each input mean.
        dialect: 'qdq', 'qcdq' or 'qonnx'.
        metadata: what the model says of its origin.
        pixels: inputs that were compiled for uint8 pixels take them; otherwise all inputs are the
            float inputs of the original network.
        int4: weights of at most 4 bits are stored as INT4 (QDQ only).
        version: of qcompile.

    Raises:
        UnsupportedError: a tensor is wider than ONNX can say, or rounds in another way.
    """
    _check_rounding(graph)
    chosen: Dialect = Qdq(int4) if dialect == Qdq.name else DIALECTS[dialect]()
    export = _exported(graph, chosen, specs, pixels)
    proto = export.finish(specs, pixels, {**metadata, "format": chosen.name}, version)
    taken = {name for name in graph.inputs if specs[name].kind is InputKind.UINT8}
    pixel_inputs = frozenset(taken if pixels else ())
    return ExportedModel(graph, proto, export.reals, export.unrounded, pixel_inputs)


def export_float(graph: Graph, metadata: Mapping[str, str], version: str = "") -> bytes:
    """A graph of stage FLOAT as the file of a plain ONNX model: operators and values keep their
    names, so that a plan of the graph is one of the model.

    Args:
        graph: simplified or not, without formats of its own.
        metadata: what the model says of its origin.
        version: of qcompile.
    """
    specs = {name: InputSpec(InputKind.FLOAT32) for name in graph.inputs}
    export = _exported(graph, Qdq(), specs, pixels=False)
    proto = export.finish(specs, False, metadata, version)
    return bytes(proto.SerializeToString(deterministic=True))


def _exported(
    graph: Graph, dialect: Dialect, specs: Mapping[str, InputSpec], pixels: bool
) -> _Export:
    export = _Export(graph, dialect, LOWEST_OPSET)
    export.run(specs, pixels)
    if export.writer.opset > LOWEST_OPSET:
        # Some operators have another form in a later opset: everything again, in that one.
        export = _Export(graph, dialect, export.writer.opset)
        export.run(specs, pixels)
    return export


def _check_rounding(graph: Graph) -> None:
    """Quantizers of ONNX round to the nearest code; published fixed-point activations do not."""
    found = [
        Unsupported(op.kind, op.name, f"its output rounds as {book.name} does", ADVICE)
        for op in graph.ops
        if (book := graph.output_type(op).codebook) is not None
        and book.kind in (CodebookKind.FXP_PAPER, CodebookKind.FXP_EM)
        and not isinstance(op, MOVEMENT)
    ]
    if found:
        raise UnsupportedError(found, "ONNX export")


class _Export:
    """One run over the graph."""

    def __init__(self, graph: Graph, dialect: Dialect, opset: int) -> None:
        self.graph = graph
        self.dialect = dialect
        self.writer = Writer(graph.activations(), opset)
        self.reals: dict[str, str] = {}
        self.unrounded: dict[str, str] = {}
        self.floats: dict[str, str] = {}

    def run(self, specs: Mapping[str, InputSpec], pixels: bool) -> None:
        for name in self.graph.inputs:
            kind = self.graph.types[name]
            self.reals[name] = emit_input(
                self.writer, self.dialect, name, kind, specs[name], pixels
            )
            if specs[name].kind is InputKind.FLOAT32:
                self.floats[name] = name
        for op in self.graph.ops:
            self._operator(op)

    def _operator(self, op: Op) -> None:
        scope = Scope(self.graph, op, self.writer, self.dialect, self.reals, self.floats)
        before = len(self.writer.nodes)
        real = EMITTERS[type(op)](op, scope)
        if isinstance(op, SumOp):
            real = emit_activation(scope, real)
        self.reals[op.output] = op.output
        if self._is_quantized(op):
            copies = self._copies_codes(op)
            self.dialect.quantize(self.writer, op.name, real, op.output, scope.kind, copies)
            self.unrounded[op.output] = real
            if stays_float(self.graph, op) and not is_ternary(scope.kind):
                self.floats[op.output] = real
        elif len(self.writer.nodes) == before:
            self.writer.add("Identity", (real,), op.output, op.name)
        else:
            self.writer.nodes[-1].output[0] = op.output

    def _is_quantized(self, op: Op) -> bool:
        """Whether a quantizer stands behind an operator: not behind floats and class indices, and
        in some dialects not behind what only copies codes."""
        kind = self.graph.output_type(op)
        if kind.is_float or kind.quantization is None:
            return False
        if not self._copies_codes(op):
            return True
        # A Concat of 8-bit tensors with and without a sign has 9 bits: not worth 16-bit tensors.
        return self.dialect.quantizes_moves and (kind.integer.bits <= 8 or kind.integer.bits == 16)

    def _copies_codes(self, op: Op) -> bool:
        inputs = self.graph.input_types(op)
        return isinstance(op, MOVEMENT) and not any(item.is_float for item in inputs)

    def finish(
        self,
        specs: Mapping[str, InputSpec],
        pixels: bool,
        metadata: Mapping[str, str],
        version: str,
    ) -> onnx.ModelProto:
        graph = self.graph
        inputs = []
        for name in graph.inputs:
            is_pixels = pixels and specs[name].kind is InputKind.UINT8
            element = TensorProto.UINT8 if is_pixels else TensorProto.FLOAT
            inputs.append(value_info(name, element, graph.types[name].shape))
        outputs = [_declared(name, graph.types[name]) for name in graph.outputs]
        proto = helper.make_graph(
            self.writer.nodes, graph.name, inputs, outputs, self.writer.initializers
        )
        opsets = [helper.make_opsetid("", self.writer.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self.writer.domains)]
        model = helper.make_model(
            proto,
            opset_imports=opsets,
            ir_version=IR_VERSIONS[self.writer.opset],
            producer_name=PRODUCER,
            producer_version=version,
        )
        helper.set_model_props(model, dict(metadata))
        return with_shapes(model)


def _declared(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    """Class indices are int64 in the model, everything else is float32."""
    is_class = not kind.is_float and kind.quantization is None
    return value_info(name, TensorProto.INT64 if is_class else TensorProto.FLOAT, kind.shape)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the type of every value; Quant nodes have none without their definition."""
    inferred = onnx.shape_inference.infer_shapes(
        with_functions(model), check_type=True, strict_mode=True
    )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(inferred.graph.value_info)
    return result


def _data_bytes(tensor: TensorProto) -> int:
    count = math.prod(int(size) for size in tensor.dims)
    if tensor.data_type == TensorProto.INT4:
        return (count + 1) // 2
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
