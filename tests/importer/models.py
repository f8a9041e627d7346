"""Small ONNX models for the importer's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.graph import Graph
from qcompile.importer.model import convert_model
from qcompile.sim.executor import Executor
from qcompile.types import Array

Dims = Sequence[int | str | None]


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Dims] | None = None,
    outputs: Sequence[str] = ("y",),
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    element: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with input x [1, 2, 4, 4] and output y, unless said otherwise."""
    inputs = {"x": (1, 2, 4, 4)} if inputs is None else inputs
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, element, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(data, name) for name, data in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(8, onnx.IR_VERSION)
    )


def imported(model: onnx.ModelProto) -> Graph:
    """Imports a model that has no external data."""
    return convert_model(model, Path())


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def images(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Random inputs of both signs."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(graph.types[name].shape).astype(np.float32)
        for name in graph.inputs
    }


def assert_like_onnxruntime(model: onnx.ModelProto, tolerance: float = 1e-5) -> Graph:
    """Import and float executor agree with onnxruntime on random inputs."""
    import onnxruntime

    graph = imported(model)
    feeds = images(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected = session.run(list(graph.outputs), feeds)
    results = Executor(graph).run(feeds)
    for name, reference in zip(graph.outputs, expected, strict=True):
        assert results[name].shape == reference.shape
        scale = max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(
            results[name].astype(np.float64), reference.astype(np.float64), atol=tolerance * scale
        )
    return graph
