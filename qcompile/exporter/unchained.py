"""A form of the exported model for comparison with the simulator, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from qcompile.exporter.model import ExportedModel
from qcompile.exporter.quant_functions import with_functions
from qcompile.exporter.writer import value_info

GIVEN = "given:"


@dataclass(frozen=True)
class Unchained:
    """The model cut behind every operator, so that one rounding cannot cause others.

    Attributes:
        content: the model; for every value that some operator reads it has an input 'given:<name>',
            and every operator's result is an output.
        given: value of the graph -> input with its real numbers.
        inputs: the exported model's own inputs that are left.
        results: value of the graph -> output.
        unrounded: value of the graph -> output, or input, with its real numbers before rounding.
    """

    content: bytes
    given: dict[str, str]
    inputs: tuple[str, ...]
    results: dict[str, str]
    unrounded: dict[str, str]


def unchain(exported: ExportedModel) -> Unchained:
    """The model in which every operator computes from given inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(with_functions(exported.proto))
    graph, values = model.graph, {real: value for value, real in exported.reals.items()}
    given: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in values:
                given[values[name]] = node.input[index] = GIVEN + name
    written = {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input}
    results = {value: real for value, real in exported.reals.items() if real in written}
    # What reaches a quantizer as it came is an input of this model.
    unrounded = {
        value: given[values[real]] if real in values else real
        for value, real in exported.unrounded.items()
    }
    declared = {info.name: info for info in (*graph.value_info, *graph.output)}
    inputs = [info for info in graph.input if info.name in read]
    del graph.input[:]
    graph.input.extend(inputs)
    for value, name in given.items():
        kind = exported.graph.types[value]
        is_class = not kind.is_float and kind.quantization is None
        element = TensorProto.INT64 if is_class else TensorProto.FLOAT
        graph.input.append(value_info(name, element, kind.shape))
    outputs = dict.fromkeys([*results.values(), *unrounded.values()])
    del graph.output[:]
    graph.output.extend(declared[name] for name in outputs if name in written)
    return Unchained(
        model.SerializeToString(),
        given,
        tuple(info.name for info in inputs),
        results,
        unrounded,
    )


def runnable(exported: ExportedModel) -> bytes:
    """The exported model with the definition of all its operators."""
    return bytes(with_functions(exported.proto).SerializeToString())
