"""Joins comparisons and signs of one tensor into one function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import Activation, Add, Affine, Mul, Rescale, Steps
from qcompile.passes.base import until_stable
from qcompile.passes.fuse_activations import function_of
from qcompile.passes.scalar_chains import is_line, is_scalar, links_before

MOST_LIMITS = 64

_Function = Callable[[Fraction], Fraction]


@dataclass(frozen=True, slots=True)
class FuseSteps:
    """Sums, products and scalings of functions that are constant between limits are such functions.

    Before::

        %s = Steps 'sign'(%x) limits=(0) values=(-1, 0, 1)
        %a = Rescale 'abs'(%x) activation=leaky(-1)
        %g = Steps 'greater'(%a) limits=(0.5) values=(0, 0, 1)
        %y = Mul 'mul'(%s, %g)

    After::

        %y = Steps 'mul'(%x) limits=(-0.5, 0.5) values=(-1, 0, 0, 0, 1)

    Limits and what the function is at each of them are computed without rounding.
    """

    name: ClassVar[str] = "fuse-steps"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _fuse_one)


def _fuse_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        found = None
        if isinstance(op, Add | Mul):
            found = _joined(graph, op)
        elif isinstance(op, Affine | Rescale):
            found = _scaled(graph, op)
        if found is not None:
            rewriter = Rewriter(graph)
            rewriter.replace(op, found)
            return rewriter.finish()
    return None


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A function of `value`, constant but at its limits, and what it is anywhere, exactly."""

    value: str
    limits: frozenset[Fraction]
    at: _Function

    def steps(self, op: Op) -> Steps | None:
        """As the operator that takes the place of `op`."""
        limits = sorted(self.limits)
        if not 0 < len(limits) <= MOST_LIMITS:
            return None
        between = [(a + b) / 2 for a, b in pairwise(limits)]
        beyond = (limits[0] - 1, limits[-1] + 1)
        inner = [point for pair in zip(limits, between, strict=False) for point in pair]
        values = [self.at(point) for point in (beyond[0], *inner, limits[-1], beyond[1])]
        kept_limits: list[float] = []
        kept = [float(values[0])]
        for index, limit in enumerate(limits):
            here, above = values[2 * index + 1], values[2 * index + 2]
            if here == above == values[2 * index]:
                continue
            kept_limits.append(float(limit))
            kept += [float(here), float(above)]
        rises = all(a < b for a, b in pairwise(kept_limits))
        if not kept_limits or not rises or not all(map(math.isfinite, (*kept_limits, *kept))):
            return None
        return Steps(
            name=op.name,
            inputs=(self.value,),
            outputs=op.outputs,
            limits=tuple(kept_limits),
            values=tuple(kept),
        )


def _joined(graph: Graph, op: Add | Mul) -> Steps | None:
    """The sum or product of two functions of one value."""
    if not is_scalar(op.activation) or _is_constant(graph, op):
        return None
    if graph.types[op.inputs[0]].shape != graph.types[op.inputs[1]].shape:
        return None
    after = _exact(op.activation)
    first, second = (list(_pieces(graph, name)) for name in op.inputs)
    for left in first:
        for right in second:
            if left.value != right.value:
                continue
            combined = _combination(op, left.at, right.at)
            limits = left.limits | right.limits
            return _Pieces(left.value, limits, lambda x, f=combined: after(f(x))).steps(op)  # type: ignore[misc]
    return None


def _combination(op: Add | Mul, left: _Function, right: _Function) -> _Function:
    if isinstance(op, Mul):
        return lambda x: left(x) * right(x)
    weights = op.weights
    return lambda x: weights[0] * left(x) + weights[1] * right(x)


def _scaled(graph: Graph, op: Affine | Rescale) -> Steps | None:
    """What an operator that multiplies, or adds one number, makes of the steps before it."""
    producer = graph.producers.get(op.inputs[0])
    function = function_of(graph, op)
    if not isinstance(producer, Steps) or function is None or not is_line(function):
        return None
    after, before = _exact(function), _of_steps(producer)
    limits = frozenset(map(Fraction, producer.limits))
    return _Pieces(producer.inputs[0], limits, lambda x: after(before(x))).steps(op)


def _is_constant(graph: Graph, op: Op) -> bool:
    return any(graph.is_constant(name) for name in op.inputs)


def _pieces(graph: Graph, value: str) -> Iterator[_Pieces]:
    """`value` as a function of what it was computed from, nearest first; none if it is no steps.

    What lies between a value and the steps was joined with them already.
    """
    producer = graph.producers.get(value)
    if not isinstance(producer, Steps):
        return
    own = _of_steps(producer)
    for link in links_before(graph, producer.inputs[0]):
        before = _exact(link.function)
        limits = frozenset(
            point
            for limit in producer.limits
            for point in _preimages(link.function, Fraction(limit))
        )
        yield _Pieces(link.value, limits, lambda x, f=before: own(f(x)))  # type: ignore[misc]


def _of_steps(op: Steps) -> _Function:
    limits, values = tuple(map(Fraction, op.limits)), tuple(map(Fraction, op.values))

    def at(x: Fraction) -> Fraction:
        return values[sum((x >= limit) + (x > limit) for limit in limits)]

    return at


def _exact(function: Activation) -> _Function:
    """An activation that is the same for all channels, in rational numbers."""
    slope, gain, shift = (
        Fraction(part[0]) for part in (function.slope, function.gain, function.shift)
    )

    def at(x: Fraction) -> Fraction:
        result = gain * (x if x >= 0 else slope * x) + shift
        if function.low != -math.inf:
            result = max(result, Fraction(function.low))
        return result if function.high == math.inf else min(result, Fraction(function.high))

    return at


def _preimages(function: Activation, limit: Fraction) -> Iterator[Fraction]:
    """Every x at which the function may pass `limit`: the solutions on both its lines, and where
    it bends."""
    slope, gain, shift = (
        Fraction(part[0]) for part in (function.slope, function.gain, function.shift)
    )
    if slope != 1:
        yield Fraction(0)
    if gain != 0:
        yield (limit - shift) / gain
        if slope != 0:
            yield (limit - shift) / gain / slope
    for bound in (function.low, function.high):
        if math.isfinite(bound) and gain != 0:
            edge = (Fraction(bound) - shift) / gain
            yield edge
            if slope != 0:
                yield edge / slope
