"""Small float graphs for pass tests, and the question whether two graphs compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompile.graph import Graph, Op, Stage, infer_missing_types, live_ops
from qcompile.ops import MOVEMENT, Conv, ConvTranspose
from qcompile.sim.executor import Executor
from qcompile.types import Array, IntType, Shape, TensorType
from qcompile.verifier import verify


class Net:
    """Builds a graph operator by operator; values are named after the operators that write them."""

    def __init__(self, seed: int = 0, **inputs: Shape) -> None:
        self.rng = np.random.default_rng(seed)
        self._inputs = tuple(inputs)
        self._types = {name: TensorType(shape) for name, shape in inputs.items()}
        self._constants: dict[str, Array] = {}
        self._ops: list[Op] = []

    def constant(self, data: Any) -> str:
        array = np.asarray(data, dtype="float32")
        name = f"k{len(self._constants)}"
        self._constants[name] = array
        self._types[name] = TensorType(array.shape)
        return name

    def random(self, *shape: int, low: float = -1.0) -> str:
        return self.constant(self.rng.uniform(low, 1.0, shape))

    def add(self, name: str, kind: type[Op], *inputs: str, **fields: Any) -> str:
        op = kind(name=name, inputs=inputs, outputs=(name,), **fields)
        if op.kind in ("ArgMax", "Threshold"):
            shape = op.infer_shape([self._types[value].shape for value in inputs])
            self._types[name] = TensorType(shape, IntType(8, signed=False))
        elif isinstance(op, MOVEMENT):
            shape = op.infer_shape([self._types[value].shape for value in inputs])
            self._types[name] = TensorType(shape, self._types[inputs[0]].element)
        infer_missing_types([op], self._types)
        self._ops.append(op)
        return name

    def conv(
        self, name: str, x: str, filters: int, kernel: int = 3, pad: int = 1, **fields: Any
    ) -> str:
        groups = fields.get("groups", 1)
        shape = self._types[x].shape
        window = (kernel,) * (len(shape) - 2)
        weights = self.random(filters, shape[1] // groups, *window)
        defaults = {
            "strides": (1,) * len(window),
            "dilations": (1,) * len(window),
            "pads_begin": (pad,) * len(window),
            "pads_end": (pad,) * len(window),
        }
        return self.add(name, Conv, x, weights, self.random(filters), **(defaults | fields))

    def up(self, name: str, x: str, filters: int, **fields: Any) -> str:
        groups = fields.get("groups", 1)
        weights = self.random(self._types[x].shape[1], filters // groups, 2, 2)
        return self.add(
            name,
            ConvTranspose,
            x,
            weights,
            self.random(filters),
            strides=(2, 2),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
            output_padding=(0, 0),
            **fields,
        )

    def shape(self, name: str) -> Shape:
        return self._types[name].shape

    def graph(self, *outputs: str) -> Graph:
        """What the outputs depend on."""
        graph = Graph(
            "net",
            Stage.FLOAT,
            self._inputs,
            outputs,
            live_ops(self._ops, outputs),
            dict(self._types),
            dict(self._constants),
        )
        verify(graph)
        return graph


def run(graph: Graph, seed: int = 1) -> dict[str, Array]:
    """Outputs for random inputs around zero, which depend on the seed alone."""
    rng = np.random.default_rng(seed)
    feeds = {
        name: rng.normal(size=graph.types[name].shape).astype("float32") for name in graph.inputs
    }
    return Executor(graph).run(feeds)


def assert_same_function(before: Graph, after: Graph, tolerance: float = 2e-5) -> None:
    """Equal outputs up to rounding, relative to the largest value; both graphs obey the rules."""
    verify(after)
    assert after.outputs == before.outputs
    assert after.inputs == before.inputs
    expected, actual = run(before), run(after)
    for name in before.outputs:
        assert actual[name].shape == expected[name].shape
        assert actual[name].dtype == expected[name].dtype
        limit = tolerance * max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=limit)


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]
