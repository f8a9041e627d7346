"""Which tensors lie in bit planes, and which operators work on them there.

Before: ternary and binary tensors, a byte for each code.    After: value -> `BitPlanes`.

    %a: i2n, behind a ReLU (0, 1)      1 plane: code >= 1
    %b: i2n (-1, 0, 1)                 2 planes: code >= 1, code >= 0
    %c: binary (-1, 1)                 1 plane: code >= 1

A plane has a bit for each pixel: bit i of the byte at row r and column x is the pixel
(i * stripe + r, x), where eight stripes of `stripe` rows make the image. Channels follow each
other, then come planes, rows and columns. The decision is made once, for every level of the
emitted C.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.numerics import Thresholds
from qcompile.ops import Concat, Conv, ConvTranspose, MaxPool, NearestResize, SumOp
from qcompile.types import Array, Range, Shape, TensorType

STRIPES = 8
"""Bits of a byte: so many parts an image is cut into."""
TERNARY_CODES = Range(-1, 1)
FEWEST_BYTES = 16
"""Of one plane: less does not fill half a vector of AVX2."""
MOST_BITS = 15
"""Of the sums that bit-sliced counters hold."""


class PlaneCodes(enum.Enum):
    """Which codes the planes stand for."""

    UNIT = "0, 1"
    SIGN = "-1, 1"
    TERNARY = "-1, 0, 1"


@dataclass(frozen=True, slots=True)
class BitPlanes:
    """How one tensor [1, C, H, W] lies in planes."""

    codes: PlaneCodes

    @property
    def planes(self) -> int:
        """Planes of a channel."""
        return 2 if self.codes is PlaneCodes.TERNARY else 1

    def size(self, shape: Shape) -> int:
        """Bytes of a tensor."""
        return shape[1] * self.planes * plane_bytes(shape)


@dataclass(frozen=True)
class PlanePlan:
    """Value -> how it lies in planes; and the names of the operators that read and write planes."""

    values: Mapping[str, BitPlanes]
    native: frozenset[str]


NO_PLANES = PlanePlan({}, frozenset())
"""Every tensor has a byte or more for each code."""


def stripe(shape: Shape) -> int:
    """Rows of an image [1, C, H, W] that share the bits of one byte at one position."""
    return -(-shape[2] // STRIPES)


def plane_bytes(shape: Shape) -> int:
    """Bytes of one plane of one channel."""
    return stripe(shape) * shape[3]


def memory_bytes(kind: TensorType, planes: BitPlanes | None) -> int:
    """Bytes that an activation takes in the arena."""
    return kind.storage_bytes if planes is None else planes.size(kind.shape)


@dataclass(frozen=True)
class PlacePlanes:
    """Chooses planes around every layer with ternary weights and activations."""

    def run(self, graph: Graph) -> PlanePlan:
        """The plan; empty where no such layer exists."""
        kinds: dict[str, PlaneCodes] = {}
        for op in graph.ops:
            found = _plane_codes(graph, op, kinds)
            if found is not None:
                kinds[op.output] = found
        able = {op.name for op in graph.ops if _is_able(graph, op, kinds)}
        layers = {name for name in able if isinstance(graph.by_name[name], Conv | ConvTranspose)}
        chosen: set[str] = set()
        for op in graph.ops:  # what layers write, and what is moved from there
            if op.name in layers or (op.name in able and any(x in chosen for x in op.inputs)):
                chosen.add(op.output)
        for op in reversed(graph.ops):  # what layers read, through what moves it there
            if op.name in layers:
                chosen.add(op.inputs[0])
            elif op.name in able and op.output in chosen:
                chosen.update(op.inputs)
        return PlanePlan(
            {value: BitPlanes(codes) for value, codes in kinds.items() if value in chosen},
            frozenset(
                op.name
                for op in graph.ops
                if op.name in able
                and op.output in chosen
                and all(value in chosen for value in op.inputs if value not in graph.constants)
            ),
        )


def _plane_codes(graph: Graph, op: Op, known: Mapping[str, PlaneCodes]) -> PlaneCodes | None:
    """Which codes the output of `op` has, if planes could hold it."""
    kind, value = graph.output_type(op), op.output
    if len(op.outputs) != 1 or not _is_small(kind) or value in graph.outputs:
        return None
    if isinstance(op, MaxPool | NearestResize | Concat):
        parts = {known.get(part) for part in op.inputs}
        if None not in parts and len(parts) == 1:
            return parts.pop()
    if isinstance(op, SumOp) and isinstance(op.epilogue, Thresholds):
        return _epilogue_codes(graph, op, op.epilogue)
    return PlaneCodes.UNIT if kind.codes.low >= 0 else PlaneCodes.TERNARY


def _epilogue_codes(graph: Graph, op: SumOp, steps: Thresholds) -> PlaneCodes | None:
    levels = (steps.low, steps.step, len(steps.thresholds))
    if levels == (-1, 1, 2):
        constants = [graph.constants.get(value) for value in op.inputs]
        lowest = op.reach(graph.input_types(op), constants).low
        return PlaneCodes.UNIT if max(steps.thresholds[0]) <= lowest else PlaneCodes.TERNARY
    return {(-1, 2, 1): PlaneCodes.SIGN, (0, 1, 1): PlaneCodes.UNIT}.get(levels)


def _is_small(kind: TensorType) -> bool:
    return (
        not kind.is_float
        and kind.rank == 4
        and kind.shape[0] == 1
        and TERNARY_CODES.contains(kind.codes)
        and plane_bytes(kind.shape) >= FEWEST_BYTES
    )


def _is_able(graph: Graph, op: Op, kinds: Mapping[str, PlaneCodes]) -> bool:
    """`op` has a kernel that reads and writes planes."""
    values = [value for value in op.inputs if value not in graph.constants]
    if not all(value in kinds for value in (*values, op.output)):
        return False
    if isinstance(op, MaxPool):
        return _meets_pixels(op, graph.types[op.inputs[0]].shape, graph.output_type(op).shape)
    if isinstance(op, NearestResize):
        return True
    if isinstance(op, Concat):
        return op.axis == 1
    if not isinstance(op, Conv | ConvTranspose) or op.groups != 1 or op.inputs[1] in values:
        return False
    weights = graph.constants[op.inputs[1]]
    if graph.types[op.inputs[1]].is_float or np.abs(weights).max() > 1:
        return False
    rows = filters(op, weights)
    if not isinstance(op.epilogue, Thresholds) or counter_bits(rows, 2) > MOST_BITS:
        return False
    if isinstance(op, ConvTranspose):
        shape, out = graph.types[op.inputs[0]].shape, graph.output_type(op).shape
        plain = {*op.pads_begin, *op.pads_end, *op.output_padding} == {0}
        doubled = weights.shape[2:] == op.strides == (2, 2)
        return plain and doubled and stripe(out) == 2 * stripe(shape)
    return True


def _meets_pixels(op: MaxPool, shape: Shape, out: Shape) -> bool:
    """Every window has a pixel of the image: padding has no code of its own in planes."""
    return {*op.dilations} == {1} and all(
        begin < kernel and (last - 1) * stride - begin < size
        for begin, kernel, stride, size, last in zip(
            op.pads_begin, op.kernel, op.strides, shape[2:], out[2:], strict=True
        )
    )


def filters(op: Conv | ConvTranspose, weights: Array) -> Array:
    """Weights by filters: [M, taps * C], or for `ConvTranspose` [M * taps, C]."""
    if isinstance(op, ConvTranspose):
        return weights.transpose(1, 2, 3, 0).reshape(-1, weights.shape[0])
    return weights.transpose(0, 2, 3, 1).reshape(weights.shape[0], -1)


def counter_bits(rows: Array, planes: int) -> int:
    """Bits of a signed counter for any of these filters, where an input has `planes` bits."""
    # Carries of the first pass, and fours that are filled up, add less than 24.
    return (planes * int(np.abs(rows).sum(axis=1, dtype=np.int64).max()) + 24).bit_length() + 1
