"""Finds GELU in whatever products, sums and functions exporters write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import Activation, Add, Affine, Erf, Gelu, Mul, Pointwise, Rescale, Tanh
from qcompile.passes.base import until_stable
from qcompile.types import Array

LARGEST = 12
"""Operators that a GELU is made of, at most."""
SAMPLES = np.linspace(-6.0, 6.0, 481)
TOLERANCE = 2e-6
"""Constants such as 1 / sqrt(2) come rounded to float32; the two forms differ by 5e-4."""


@dataclass(frozen=True, slots=True)
class RecogniseGelu:
    """A part of the graph that computes gelu(x) from one tensor x becomes one function.

    Before::

        %a = Affine(%x, @0.7071, @0)
        %b = Erf(%a)
        %c = Affine(%b, @1, @1)
        %d = Mul(%x, %c)
        %y = Affine(%d, @0.5, @0)

    After::

        %y = Gelu(%x)

    One function of one tensor is one table later, where every operator would round by itself. The
    spelling does not matter: the part is computed for a few hundred numbers, and compared with both
    forms of GELU (erf and tanh). A factor that is left over becomes a `Rescale`.
    """

    name: ClassVar[str] = "recognise-gelu"

    def run(self, graph: Graph) -> Graph:
        if not any(isinstance(op, Erf | Tanh) for op in graph.ops):
            return graph
        return until_stable(graph, _recognise_one)


def _recognise_one(graph: Graph) -> Graph | None:
    order = {op.name: index for index, op in enumerate(graph.ops)}
    for op in reversed(graph.ops):
        if isinstance(op, Mul | Affine | Rescale):
            edited = _recognised(graph, op, order)
            if edited is not None:
                return edited
    return None


def _recognised(graph: Graph, last: Op, order: Mapping[str, int]) -> Graph | None:
    """`last` as a Gelu of some value before it."""
    part = [last]
    shape = graph.types[last.output].shape
    while len(part) <= LARGEST:
        if not _is_scalar_function(graph, part[-1], shape):
            return None
        inside = {op.output for op in part}
        reads = {value for op in part for value in op.inputs if not graph.is_constant(value)}
        sources = reads - inside
        if len(sources) == 1 and any(isinstance(op, Erf | Tanh) for op in part):
            found = _compared(graph, part, next(iter(sources)), last.output)
            if found is not None:
                return _replaced(graph, last, next(iter(sources)), *found)
        # The last in the graph: none of the other sources can depend on it.
        before = [graph.producers[value] for value in sources if value in graph.producers]
        if not before:
            return None
        part.append(max(before, key=lambda op: order[op.name]))
    return None


def _is_scalar_function(graph: Graph, op: Op, shape: tuple[int, ...]) -> bool:
    """Every element of the result is the same function of the elements at its place."""
    if graph.types[op.output].shape != shape:
        return False
    constants = [graph.constants[value] for value in op.inputs if graph.is_constant(value)]
    if any((data != data.reshape(-1)[0]).any() for data in constants):
        return False
    if isinstance(op, Mul | Add | Affine | Rescale):
        vectors = (op.activation.slope, op.activation.gain, op.activation.shift)
        return all(len(vector) == 1 for vector in vectors)
    return isinstance(op, Pointwise)


def _compared(graph: Graph, part: list[Op], x: str, output: str) -> tuple[bool, float] | None:
    """(the tanh form?, factor) if the operators of `part` make that of the value `x`."""
    values: dict[str, Array] = {x: SAMPLES}
    for op in reversed(part):
        if any(value not in values and not graph.is_constant(value) for value in op.inputs):
            return None
        values[op.output] = _computed(graph, op, values)
    result = values[output]
    factor = float(result[-1] / SAMPLES[-1])
    if factor == 0 or not np.isfinite(result).all():
        return None
    for tanh in (False, True):
        wanted = Gelu(name="gelu", inputs=(x,), outputs=(output,), tanh=tanh).function(SAMPLES)
        if float(np.abs(result / factor - wanted).max()) <= TOLERANCE:
            return tanh, factor
    return None


def _computed(graph: Graph, op: Op, values: Mapping[str, Array]) -> Array:
    """The operator on the samples; its constants are single numbers."""
    inputs = [
        np.float64(graph.constants[value].reshape(-1)[0])
        if graph.is_constant(value)
        else values[value]
        for value in op.inputs
    ]
    if isinstance(op, Pointwise):
        return op.function(np.asarray(inputs[0]))
    assert isinstance(op, Mul | Add | Affine | Rescale)
    if isinstance(op, Mul):
        result = inputs[0] * inputs[1]
    elif isinstance(op, Add):
        result = op.weights[0] * inputs[0] + op.weights[1] * inputs[1]
    else:
        result = inputs[0] * (inputs[1] if len(inputs) > 1 else 1)
        result = result + (inputs[2] if len(inputs) > 2 else 0)
    return op.activation.apply(np.asarray(result), 0)


def _replaced(graph: Graph, last: Op, x: str, tanh: bool, factor: float) -> Graph:
    rewriter = Rewriter(graph)
    if abs(factor - 1) <= TOLERANCE:
        rewriter.replace(last, Gelu(name=last.name, inputs=(x,), outputs=last.outputs, tanh=tanh))
        return rewriter.finish()
    value = rewriter.add_value(f"{last.name}.gelu", graph.types[last.output])
    rewriter.replace(
        last,
        Gelu(name=rewriter.fresh(f"{last.name}.gelu"), inputs=(x,), outputs=(value,), tanh=tanh),
        Rescale(
            name=last.name,
            inputs=(value,),
            outputs=last.outputs,
            activation=Activation(gain=(factor,)),
        ),
    )
    return rewriter.finish()
