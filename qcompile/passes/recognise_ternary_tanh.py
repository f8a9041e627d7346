"""Finds the ternary tanh, which exporters write as a sum of two shifted Tanh."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import Activation, Add, Affine, Rescale, Tanh, TernaryTanh
from qcompile.passes.base import until_stable
from qcompile.passes.fuse_activations import function_of
from qcompile.passes.scalar_chains import Link, is_line, links_before

_TOLERANCE = 1e-5
"""Relative; constants such as 2 beta come rounded to float32."""


@dataclass(frozen=True, slots=True)
class RecogniseTernaryTanh:
    """k * (tanh(a x - b) + tanh(a x + b)), in any of its spellings, becomes a `TernaryTanh`.

    Before, with beta = 3::

        %u = Affine 'mul'(%x, @6, @0)
        %v = Affine 'sub'(%u, @1, @-3)
        %w = Affine 'sub2'(%u, @-1, @-3)
        %p = Tanh 'right'(%v)
        %q = Tanh 'left'(%w)
        %t = Add 'add'(%p, %q) weights=(1, -1)
        %y = Affine 'half'(%t, @0.5, @0)

    After::

        %y = TernaryTanh 'half'(%x) beta=3

    Factors may stand inside or outside, signs on any side (tanh is odd). Steps that are not at 1/2
    get a `Rescale` of x before the function, a height that is not 1 one behind it. Run it before
    `FoldAffine`, which takes the first factor into the weights before it.
    """

    name: ClassVar[str] = "recognise-ternary-tanh"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _recognise_one)


@dataclass(frozen=True, slots=True)
class _Found:
    """height * (ternary tanh of `beta` of gain * value)."""

    value: str
    gain: float
    beta: float
    height: float


def _recognise_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if not isinstance(op, Add) or not is_line(op.activation):
            continue
        found = _match(graph, op)
        if found is not None:
            return _replaced(graph, op, found)
    return None


def _match(graph: Graph, op: Add) -> _Found | None:
    terms = [_tanh_before(graph, value) for value in op.inputs]
    if terms[0] is None or terms[1] is None:
        return None
    (left, left_outer), (right, right_outer) = terms[0], terms[1]
    outer = op.activation.gain[0]
    heights = [
        outer * weight * line.gain[0]
        for weight, line in zip(op.weights, (left_outer, right_outer), strict=True)
    ]
    shifts = [left_outer.shift[0] * op.weights[0], right_outer.shift[0] * op.weights[1]]
    if outer * sum(shifts) + op.activation.shift[0] != 0:
        return None
    candidates = [
        found
        for first in _lines(graph, left)
        for second in _lines(graph, right)
        if first.value == second.value and (found := _ternary(first, second, heights)) is not None
    ]
    # One spelling names the step at 1/2 itself; of others the nearest value will do.
    return next((found for found in candidates if found.gain == 1.0), next(iter(candidates), None))


def _tanh_before(graph: Graph, value: str) -> tuple[Tanh, Activation] | None:
    """The Tanh that a line makes `value` of, and the line."""
    for link in links_before(graph, value):
        producer = graph.producers.get(link.value)
        if isinstance(producer, Tanh):
            return (producer, link.function) if is_line(link.function) else None
    return None


def _lines(graph: Graph, op: Tanh) -> Iterator[Link]:
    for link in links_before(graph, op.inputs[0]):
        if not is_line(link.function):
            return
        yield link


def _ternary(first: Link, second: Link, heights: list[float]) -> _Found | None:
    """Both terms as height * tanh(a x + b) with a > 0: they differ in the sign of b alone."""
    slopes, offsets, scaled = [], [], []
    for link, height in zip((first, second), heights, strict=True):
        slope, offset = link.function.gain[0], link.function.shift[0]
        sign = math.copysign(1.0, slope)
        slopes.append(sign * slope)
        offsets.append(sign * offset)
        scaled.append(sign * height)
    beta = (abs(offsets[0]) + abs(offsets[1])) / 2
    matches = (
        min(*slopes, beta, abs(scaled[0])) > 0
        and _close(*slopes)
        and _close(*scaled)
        and _close(offsets[0], -offsets[1])
    )
    if not matches:
        return None
    gain = _snapped((slopes[0] + slopes[1]) / (4 * beta))
    height = _snapped(scaled[0] + scaled[1])
    return _Found(first.value, gain, beta, height)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE)


def _snapped(value: float) -> float:
    """What is 1 but for rounding is 1."""
    return math.copysign(1.0, value) if _close(abs(value), 1.0) else value


def _replaced(graph: Graph, op: Add, found: _Found) -> Graph:
    rewriter = Rewriter(graph)
    last, height = _last(graph, op, found.height)
    gain = math.copysign(found.gain, height)  # the function is odd
    added: list[Op] = []
    source = found.value
    if gain != 1.0:
        source = rewriter.add_value(f"{last.name}.scaled", graph.types[found.value])
        scaling = Activation(gain=(gain,))
        name = rewriter.fresh(f"{last.name}.scale")
        added.append(
            Rescale(name=name, inputs=(found.value,), outputs=(source,), activation=scaling)
        )
    if abs(height) == 1.0:
        tanh = TernaryTanh(name=last.name, inputs=(source,), outputs=last.outputs, beta=found.beta)
        rewriter.replace(last, *added, tanh)
        return rewriter.finish()
    value = rewriter.add_value(f"{last.name}.ternary", graph.types[last.output])
    name = rewriter.fresh(f"{last.name}.ternary")
    added.append(TernaryTanh(name=name, inputs=(source,), outputs=(value,), beta=found.beta))
    taller = Activation(gain=(abs(height),))
    added.append(Rescale(name=last.name, inputs=(value,), outputs=last.outputs, activation=taller))
    rewriter.replace(last, *added)
    return rewriter.finish()


def _last(graph: Graph, op: Op, height: float) -> tuple[Op, float]:
    """The operator behind which the height is 1 or -1, among those that only multiply; else `op`.
    And the height there."""
    current, reached = op, height
    while abs(reached) != 1.0:
        reader = graph.only_consumer(current.output)
        if not isinstance(reader, Affine | Rescale):
            return op, height
        function = function_of(graph, reader)
        if function is None or not is_line(function) or function.shift != (0.0,):
            return op, height
        current, reached = reader, _snapped(reached * function.gain[0])
    return current, reached
