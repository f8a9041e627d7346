"""Where in the image the queries and keys of attention come from.

Every element of a tensor gets a place: the row and the column of the image that it stands for, from
0 to 1, as far as that follows from the operators before it. Class tokens and constants have none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.graph import Graph, Op
from qcompile.ops import (
    BatchMatMul,
    Concat,
    Conv,
    ConvTranspose,
    DepthToSpace,
    Gather,
    LocalAttention2d,
    MatMul,
    Pad,
    PadMode,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)
from qcompile.sim.attention_maps import Gate, paths
from qcompile.sim.table import KERNELS
from qcompile.types import Array, Shape, TensorType

MOVED: tuple[type[Op], ...] = (Concat, DepthToSpace, Gather, Reshape, Slice, Transpose)
"""Operators whose own kernel moves places as it moves elements."""


@dataclass(frozen=True)
class Places:
    """Of one softmax, its axis last, or of one gate.

    Attributes:
        queries: float32 [.., queries, 2]: row and column; NaN where there is none. Of a gate its
            pixels [rows, columns, 2].
        keys: float32 [.., keys, 2], likewise.
    """

    queries: Array
    keys: Array


def attention_places(graph: Graph, layers: Sequence[Softmax | Gate]) -> dict[str, Places]:
    """The places of queries and keys of each softmax, and of the pixels of each gate, by operator
    name.

    A layer over images keeps the place of its input, strided or resized. Channels are averaged, and
    so are tensors that are added. A product of attention has the places of its queries.

    Args:
        graph: of any stage, with images [1, C, H, W] (or channels last) as input.
        layers: of the graph, from `attention_layers`.
    """
    wanted = {op.name for op in layers}
    softmaxes = [op for op in layers if isinstance(op, Softmax)]
    weights = {value for op in softmaxes for path in paths(graph, op) for value in path.values}
    last = {value: op.name for op in graph.ops for value in op.inputs}
    known = {name: _image_places(graph.types[name].shape) for name in graph.inputs}
    results: dict[str, Places] = {}
    queries: dict[str, Array] = {}
    waiting = {path.product.name: (op, path) for op in softmaxes for path in paths(graph, op)}
    for op in graph.ops:
        if not wanted:
            break
        inputs = [
            _nowhere(graph.types[value].shape) if graph.is_constant(value) else known[value]
            for value in op.inputs
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing but NaN
            if isinstance(op, Softmax) and op.name in wanted:
                scores = np.moveaxis(inputs[0], 1 + op.axis, -1)
                # Rows of the scores are queries, columns are keys.
                known_side = scores if op.axis == scores.ndim - 2 else scores * np.nan
                queries[op.name] = np.nanmean(known_side, axis=-1)
            if op.name in waiting:
                softmax, path = waiting[op.name]
                if softmax.name in wanted:
                    keys = _keys(graph, softmax, path.moves, path.values[-1], op, inputs)
                    results[softmax.name] = Places(
                        np.moveaxis(queries[softmax.name], 0, -1),
                        np.moveaxis(np.nanmean(keys, axis=-2), 0, -1),
                    )
                    wanted.discard(softmax.name)
            shape = graph.output_type(op).shape
            known[op.output] = np.asarray(_after(op, inputs, shape, weights), np.float32)
            if op.name in wanted and isinstance(op, Gate):
                pixels = np.moveaxis(np.nanmean(known[op.output], axis=(1, 2)), 0, -1)
                results[op.name] = Places(pixels, pixels)
                wanted.discard(op.name)
        for value in op.inputs:
            if last[value] == op.name:
                known.pop(value, None)
    return results


def _nowhere(shape: Shape) -> Array:
    return np.broadcast_to(np.float32(np.nan), (2, *shape))


def _image_places(shape: Shape) -> Array:
    """[2, *shape] of an input: pixel centres."""
    if len(shape) != 4:
        return _nowhere(shape)
    axes = [axis for axis in range(1, 4) if axis != channel_axis(shape)]
    found = []
    for axis in axes:
        line = ((np.arange(shape[axis]) + 0.5) / shape[axis]).astype(np.float32)
        found.append(
            np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(4)]), shape)
        )
    return np.stack(found)


def _after(op: Op, inputs: Sequence[Array], shape: Shape, weights: set[str]) -> Array:
    """The places of an operator's output [2, *shape]."""
    if isinstance(op, MOVED):
        kernel = KERNELS[type(op)].float_
        assert kernel is not None
        return np.stack(
            [kernel(op, [item[i] for item in inputs], TensorType(shape)) for i in range(2)]
        )
    if isinstance(op, Pad):
        widths = [(0, 0), *zip(op.begins, op.ends, strict=True)]
        if op.mode is PadMode.CONSTANT:
            return np.pad(inputs[0], widths, constant_values=np.nan)
        return np.pad(inputs[0], widths, mode="edge" if op.mode is PadMode.EDGE else "reflect")
    if isinstance(op, BatchMatMul):
        # Of attention the queries' side: that of its weights, of scores that of the first factor.
        if op.inputs[1] in weights:
            return _spread(np.nanmean(inputs[1], axis=-2, keepdims=True), shape)
        return _spread(np.nanmean(inputs[0], axis=-1, keepdims=True), shape)
    if isinstance(op, MatMul):
        return _spread(np.nanmean(inputs[0], axis=-1, keepdims=True), shape)
    before = inputs[0].shape[1:]
    if isinstance(op, Conv | ConvTranspose | LocalAttention2d) or (
        len(shape) == len(before) == 4 and shape[1] == before[1] and shape != before
    ):
        return _spread(_resampled(inputs[0], shape), shape)
    alike = [item for item in inputs if item.shape[1:] == shape]
    if not alike:
        alike = [_spread(item, shape) for item in inputs if _fits(item, shape)]
    if len(alike) < 2:
        return alike[0] if alike else _nowhere(shape)
    return np.asarray(np.nanmean(np.stack(alike), axis=0))


def _spread(places: Array, shape: Shape) -> Array:
    """The same places along axes of size 1."""
    return np.broadcast_to(places, (2, *shape))


def _fits(places: Array, shape: Shape) -> bool:
    try:
        return np.broadcast_shapes(places.shape[1:], shape) == shape
    except ValueError:
        return False


def _resampled(places: Array, shape: Shape) -> Array:
    """Of an image [2, 1, C, *sizes] at other sizes: the channels' mean, linearly in between."""
    result: Array = np.nanmean(places, axis=2, keepdims=True)
    for axis, size in enumerate(shape[2:], 3):
        count = result.shape[axis]
        if size == count:
            continue
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.floor(at).astype(np.int64)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(result.ndim)])
        high = np.minimum(low + 1, count - 1)
        between = (1 - share) * result.take(low, axis) + share * result.take(high, axis)
        result = np.asarray(between)
    return result


def _keys(
    graph: Graph,
    softmax: Softmax,
    moves: Sequence[Op],
    value: str,
    product: Op,
    inputs: Sequence[Array],
) -> Array:
    """Places [2, .., queries, keys] of what the weights are multiplied with.

    The weights are followed to the product as numbers of their own elements.
    """
    shape = graph.output_type(softmax).shape
    numbers = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    for op in moves:
        kernel = KERNELS[type(op)].integer
        if isinstance(op, MOVED) and kernel is not None and len(op.inputs) == 1:
            numbers = kernel(op, [numbers], TensorType(numbers.shape))
        elif graph.output_type(op).shape != numbers.shape:
            return _nowhere(np.moveaxis(numbers, softmax.axis, -1).shape)
    if product.inputs[0] == value:
        other = np.nanmean(inputs[1], axis=-1)[..., None, :]
    else:
        other = np.nanmean(inputs[0], axis=-2)[..., :, None]
    found = np.full((2, int(np.prod(shape))), np.nan, np.float32)
    spread = np.broadcast_shapes(numbers.shape, other.shape[1:])
    for i in range(2):
        found[i, np.broadcast_to(numbers, spread)] = np.broadcast_to(other[i], spread)
    return np.moveaxis(found.reshape(2, *shape), 1 + softmax.axis, -1)
