"""Which elements of other values an element is made of, through whatever moves them.

    %u = Slice(Pad(%k))   %s = ReduceMean(Mul(%q, Add(%u, @r)))

Element 5 of %s is the sum of products of elements of %q and of %k, to some of which a constant is
added; where %k is padded there is none. All by flat index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import (
    IDENTITY,
    Add,
    Affine,
    BatchMatMul,
    Concat,
    Gather,
    Mul,
    Pad,
    PadMode,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.types import Array, Shape

OUTSIDE = -1
"""Index of what no element is: padding."""


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of one value.

    Attributes:
        value: whose.
        index: their flat indices, or `OUTSIDE`.
        added: a constant that is added to each; of the shape of `index`.
    """

    value: str
    index: Array
    added: Array


class Mismatch(Exception):
    """A graph computes something else than what was looked for."""


class ElementOrigins:
    """Follows elements back through one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def shape_of(self, value: str) -> Shape:
        """Shape of a value."""
        return self.graph.types[value].shape

    def contraction(self, value: str, index: Array) -> tuple[tuple[Elements, Elements], float]:
        """The products [..., n] whose sum each element is, and the factor of the sum.

        Raises:
            Mismatch: it is no such sum.
        """
        factor, reduced = 1.0, False
        index = index[..., None]
        while True:
            elements = self._follow(value, index)
            if elements.added.any():
                raise Mismatch
            value, index = elements.value, inside(elements.index)
            op = self.graph.producers.get(value)
            gain = gain_of(self.graph, op)
            if op is not None and gain is not None:
                factor *= gain
                value = op.inputs[0]
            elif isinstance(op, ReduceMean) and not reduced and op.activation == IDENTITY:
                reduced = True
                shape = self.shape_of(op.inputs[0])
                factor /= op.count(shape)
                index = _reduced(op, index, shape, self.shape_of(value))
                value = op.inputs[0]
            elif isinstance(op, Mul) and op.activation == IDENTITY:
                left, right = (
                    self._follow(name, _broadcast(index, self.shape_of(value), self.shape_of(name)))
                    for name in op.inputs
                )
                return (left, right), factor
            elif isinstance(op, BatchMatMul) and op.activation == IDENTITY and not reduced:
                return self._matrix_product(op, index), factor
            else:
                raise Mismatch

    def _matrix_product(self, op: BatchMatMul, index: Array) -> tuple[Elements, Elements]:
        """The factors [..., n] of products [..., 1]."""
        left, right = (self.shape_of(name) for name in op.inputs)
        *batch, row, column = coordinates_of(index, self.shape_of(op.output))
        along = np.arange(left[-1]) + np.zeros_like(row)
        factors = []
        for name, shape, ends in (
            (op.inputs[0], left, (row, along)),
            (op.inputs[1], right, (along, column)),
        ):
            own = batch[len(batch) - len(shape) + 2 :]
            places = _spread_over(own, shape[:-2])
            coordinates = np.broadcast_arrays(*places, *ends)
            flat = flat_index(coordinates, shape)
            factors.append(self._follow(name, flat))
        return factors[0], factors[1]

    def _follow(self, value: str, index: Array) -> Elements:
        """The elements of the operator that computed `value[index]`, through movements and added
        constants.

        Raises:
            Mismatch: they come from several operators.
        """
        found = list(self._origins(value, index.reshape(-1), np.arange(index.size)))
        names = {name for name, _, _, _ in found if name}
        if len(names) != 1:
            raise Mismatch
        source = np.full(index.size, OUTSIDE, np.int64)
        added = np.zeros(index.size, np.float64)
        for name, places, elements, constant in found:
            added[places] = constant
            if name:
                source[places] = elements
        return Elements(names.pop(), source.reshape(index.shape), added.reshape(index.shape))

    def _origins(
        self, value: str, index: Array, places: Array
    ) -> Iterator[tuple[str, Array, Array, Array]]:
        """(value, places, their elements of it, what was added); no value for padding."""
        op = self.graph.producers.get(value)
        shape = self.shape_of(value)
        constant = _constant_term(self.graph, op)
        if op is not None and constant is not None:
            data = np.broadcast_to(constant, shape).reshape(-1)[index].astype(np.float64)
            sums = np.zeros(int(places.max(initial=0)) + 1)
            sums[places] = data
            inner = op.inputs[0] if not self.graph.is_constant(op.inputs[0]) else op.inputs[1]
            for name, at, elements, added in self._origins(inner, index, places):
                yield name, at, elements, added + sums[at]
            return
        match op:
            case Reshape():
                yield from self._origins(op.inputs[0], index, places)
            case Transpose():
                moved = coordinates_of(index, shape)
                inner_shape = self.shape_of(op.inputs[0])
                coordinates = [moved[0]] * len(shape)
                for axis, source in enumerate(op.permutation):
                    coordinates[source] = moved[axis]
                flat = flat_index(coordinates, inner_shape)
                yield from self._origins(op.inputs[0], flat, places)
            case Slice():
                moved = coordinates_of(index, shape)
                coordinates = [
                    start + step * at
                    for start, step, at in zip(op.starts, op.steps, moved, strict=True)
                ]
                flat = flat_index(coordinates, self.shape_of(op.inputs[0]))
                yield from self._origins(op.inputs[0], flat, places)
            case Gather():
                coordinates = coordinates_of(index, shape)
                coordinates[op.axis] = np.asarray(op.indices)[coordinates[op.axis]]
                flat = flat_index(coordinates, self.shape_of(op.inputs[0]))
                yield from self._origins(op.inputs[0], flat, places)
            case Pad() if op.mode is PadMode.CONSTANT and op.value == 0:
                inner_shape = self.shape_of(op.inputs[0])
                moved = coordinates_of(index, shape)
                coordinates = [at - begin for at, begin in zip(moved, op.begins, strict=True)]
                ok = np.ones(index.shape, bool)
                for at, size in zip(coordinates, inner_shape, strict=True):
                    ok &= (at >= 0) & (at < size)
                outside = places[~ok]
                yield "", outside, outside, np.zeros(outside.size)
                if ok.any():
                    flat = flat_index([at[ok] for at in coordinates], inner_shape)
                    yield from self._origins(op.inputs[0], flat, places[ok])
            case Concat():
                at_all = coordinates_of(index, shape)
                along, start = at_all[op.axis], 0
                for name in op.inputs:
                    size = self.shape_of(name)[op.axis]
                    own = (along >= start) & (along < start + size)
                    if own.any():
                        coordinates = [at[own] for at in at_all]
                        coordinates[op.axis] = coordinates[op.axis] - start
                        flat = flat_index(coordinates, self.shape_of(name))
                        yield from self._origins(name, flat, places[own])
                    start += size
            case _:
                yield value, places, index, np.zeros(index.size)


def gain_of(graph: Graph, op: Op | None) -> float | None:
    """The factor of an operator that only multiplies by a number."""
    if isinstance(op, Affine) and op.activation == IDENTITY:
        scale, *shift = (graph.constants[name] for name in op.inputs[1:])
        plain = (scale == scale[0]).all() and not any(item.any() for item in shift)
        return float(scale[0]) if plain else None
    if not isinstance(op, Rescale):
        return None
    gain = op.activation.gain
    plain = replace(op.activation, gain=IDENTITY.gain) == IDENTITY
    return gain[0] if plain and len(gain) == 1 else None


def inside(index: Array) -> Array:
    """`index`, none of which is padding.

    Raises:
        Mismatch: some is.
    """
    if (index == OUTSIDE).any():
        raise Mismatch
    return index


def coordinates_of(index: Array, shape: Shape) -> list[Array]:
    """Coordinates of flat indices. Of one axis, as numpy 2.4 is wrong where a last axis is 1."""
    found = np.unravel_index(index.reshape(-1), shape)
    return [at.reshape(index.shape) for at in found]


def flat_index(coordinates: Sequence[Array], shape: Shape) -> Array:
    """Flat indices of coordinates, which may broadcast."""
    result = np.zeros((), np.int64)
    for at, size in zip(coordinates, shape, strict=True):
        result = result * size + at
    return result


def _constant_term(graph: Graph, op: Op | None) -> Array | None:
    """What an operator adds that only adds a constant."""
    if isinstance(op, Add) and op.weights == (1, 1) and op.activation == IDENTITY:
        constants = [graph.constants[name] for name in op.inputs if graph.is_constant(name)]
        return constants[0] if len(constants) == 1 else None
    if isinstance(op, Affine) and op.activation == IDENTITY and len(op.inputs) > 2:
        scale, shift = (graph.constants[name] for name in op.inputs[1:3])
        rank = graph.types[op.output].rank
        return shift.reshape(-1, *[1] * (rank - 2)) if (scale == 1).all() else None
    return None


def _reduced(op: ReduceMean, index: Array, shape: Shape, out: Shape) -> Array:
    """The elements [..., n] of what is summed, for sums [..., 1]."""
    moved = coordinates_of(index, out)
    kept = iter(moved)
    counts = [size if axis in op.axes else 1 for axis, size in enumerate(shape)]
    taps = coordinates_of(np.arange(math.prod(counts)), tuple(counts))
    coordinates = []
    for axis in range(len(shape)):
        base = next(kept) if op.keepdims or axis not in op.axes else np.zeros_like(index)
        coordinates.append(base + taps[axis])
    return flat_index(coordinates, shape)


def _broadcast(index: Array, shape: Shape, operand: Shape) -> Array:
    """Elements of an operand that broadcasts to `shape`."""
    moved = coordinates_of(index, shape)[len(shape) - len(operand) :]
    return flat_index(_spread_over(moved, operand), operand)


def _spread_over(coordinates: Sequence[Array], shape: Shape) -> list[Array]:
    """Coordinates in a tensor that broadcasts: 0 along axes of size 1."""
    pairs = zip(coordinates, shape, strict=True)
    return [at if size > 1 else np.zeros_like(at) for at, size in pairs]
