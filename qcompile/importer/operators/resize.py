"""Resize and Upsample: every mapping is resolved to input indices and weights at import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from qcompile.importer.builder import MAX_SIZE, Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.coordinates import (
    HALF,
    MODES,
    Axis,
    coordinates,
    exact_scale,
)
from qcompile.importer.operators.window import normal_axes
from qcompile.ops.linear_resize import LinearResize, LinearTaps
from qcompile.ops.nearest_resize import NearestResize
from qcompile.ops.transpose import Transpose
from qcompile.types import Shape

MAX_AXIS = 1 << 16
"""Longest resized axis: a list of its positions is made at import."""


def convert_resize(node: Node, builder: Builder) -> None:
    """Resize of opset 11 and later; opset 10 is `convert_upsample`."""
    if node.opset < 11:
        convert_upsample(node, builder)
        return
    x = builder.source(node)
    shape = builder.shape(x)
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    if mode not in MODES:
        node.refuse(f"coordinate_transformation_mode '{mode}'", "use one of " + ", ".join(MODES))
    axes = _read_axes(node, builder, shape, mode)
    if node.flag("antialias") and any(axis.scale < 1 for axis in axes):
        node.refuse("antialias", "resize without antialias, or with AveragePool")
    _emit(node, builder, x, axes, mode, node.text("nearest_mode", "round_prefer_floor"))


def convert_upsample(node: Node, builder: Builder) -> None:
    """Upsample, and Resize of opset 10: asymmetric coordinates.

    Nearest takes the floor, or the ceiling where the input shrinks, as onnxruntime does.
    """
    x = builder.source(node)
    shape = builder.shape(x)
    scales = _scales(node, builder, 1)
    if scales is None or len(scales) != len(shape):
        node.malformed(f"its scales do not fit the input of shape {list(shape)}")
    axes = [_scaled(node, size, scale) for size, scale in zip(shape, scales, strict=True)]
    shrinks = any(axis.scale < 1 for axis in axes)
    _emit(node, builder, x, axes, "asymmetric", "ceil" if shrinks else "floor")


def _read_axes(node: Node, builder: Builder, shape: Shape, mode: str) -> list[Axis]:
    """Every axis of the input, from scales or sizes, `axes`, the aspect policy and the crop."""
    rank = len(shape)
    chosen = normal_axes(node, node.integers("axes", tuple(range(rank))), rank)
    scales = _scales(node, builder, 2)
    sizes = builder.integers(node, 3, "sizes") or None
    if (scales is None) == (sizes is None):
        node.malformed("it needs scales or sizes, and only one of them")
    given = scales if scales is not None else sizes
    assert given is not None
    if len(given) != len(chosen):
        node.malformed(f"{len(given)} scales or sizes for {len(chosen)} axes")
    axes = [Axis(size, size, Fraction(1)) for size in shape]
    if scales is not None:
        for axis, scale in zip(chosen, scales, strict=True):
            axes[axis] = _scaled(node, shape[axis], scale)
    elif sizes is not None:
        if not all(1 <= size <= MAX_SIZE for size in sizes):
            node.malformed(f"sizes {list(sizes)[:16]} are not positive")
        ratios = [Fraction(size, shape[axis]) for axis, size in zip(chosen, sizes, strict=True)]
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        if policy in ("not_larger", "not_smaller"):
            common = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [common] * len(ratios)
            sizes = tuple(math.floor(common * shape[axis] + HALF) for axis in chosen)
        elif policy != "stretch":
            node.malformed(f"keep_aspect_ratio_policy '{policy}' does not exist")
        for axis, size, ratio in zip(chosen, sizes, ratios, strict=True):
            axes[axis] = Axis(shape[axis], max(1, size), ratio)
    if mode == "tf_crop_and_resize":
        roi = builder.required(node, 1, "roi").reshape(-1).tolist()
        if len(roi) != 2 * len(chosen) or not all(math.isfinite(edge) for edge in roi):
            node.malformed(f"roi of {len(roi)} numbers for {len(chosen)} axes")
        for index, axis in enumerate(chosen):
            begin, end = Fraction(roi[index]), Fraction(roi[index + len(chosen)])
            old = axes[axis]
            axes[axis] = Axis(old.size_in, old.size_out, old.scale, begin, end)
    return axes


def _scales(node: Node, builder: Builder, index: int) -> tuple[float, ...] | None:
    data = builder.optional(node, index, "scales")
    if data is None or data.size == 0:
        return None
    scales = tuple(float(scale) for scale in data.reshape(-1))
    if not all(0 < scale <= MAX_SIZE for scale in scales):
        node.malformed(f"scales {list(scales)[:16]} are not positive")
    return scales


def _scaled(node: Node, size: int, scale: float) -> Axis:
    exact = exact_scale(scale)
    result = math.floor(exact * size)
    if result < 1:
        node.malformed(f"scale {scale:g} leaves nothing of an axis of size {size}")
    return Axis(size, result, exact)


def _emit(
    node: Node,
    builder: Builder,
    x: str,
    axes: Sequence[Axis],
    coordinate_mode: str,
    nearest_mode: str,
) -> None:
    mode = node.text("mode", "nearest")
    if any(axis.size_out > MAX_AXIS for axis in axes):
        node.refuse(f"an axis of more than {MAX_AXIS} elements", "check scales and --input-shape")
    points = [coordinates(node, coordinate_mode, axis) for axis in axes]
    if mode == "nearest":
        sources = [
            _nearest(node, nearest_mode, axis.size_in, place)
            for axis, place in zip(axes, points, strict=True)
        ]
        moving = [
            index
            for index, (axis, places) in enumerate(zip(axes, sources, strict=True))
            if places != tuple(range(axis.size_in))
        ]
    elif mode in ("linear", "bilinear", "trilinear") or all(axis.scale == 1 for axis in axes):
        taps = [linear_taps(axis.size_in, place) for axis, place in zip(axes, points, strict=True)]
        moving = [
            index
            for index, (axis, tap) in enumerate(zip(axes, taps, strict=True))
            if any(tap.weights) or tap.first != tuple(range(axis.size_in))
        ]
    else:
        node.refuse(f"mode '{mode}'", "export with nearest or linear interpolation")
    if not moving:
        builder.alias(node.output, x)
        return
    rank = len(axes)
    if len(moving) > rank - 2 or rank < 3:
        node.refuse(f"resizes {len(moving)} of {rank} axes", "only spatial axes can be resized")
    # NHWC models resize axes 1 and 2: bring what is resized to the end and back
    order = tuple(range(rank))
    if min(moving) < 2:
        order = (*(axis for axis in range(rank) if axis not in moving), *moving)
    name, output = node.name, node.output
    if order != tuple(range(rank)):
        x = _transposed(node, builder, x, order)
        name, output = builder.part(node, "resized")
    if mode == "nearest":
        builder.emit(
            NearestResize(
                name=name,
                inputs=(x,),
                outputs=(output,),
                sources=tuple(sources[axis] for axis in order[2:]),
            )
        )
    else:
        builder.emit(
            LinearResize(
                name=name,
                inputs=(x,),
                outputs=(output,),
                taps=tuple(taps[axis] for axis in order[2:]),
            )
        )
    if output != node.output:
        back = tuple(order.index(axis) for axis in range(rank))
        builder.emit(
            Transpose(name=node.name, inputs=(output,), outputs=(node.output,), permutation=back)
        )


def _transposed(node: Node, builder: Builder, x: str, order: tuple[int, ...]) -> str:
    name, value = builder.part(node, "transposed")
    builder.emit(Transpose(name=name, inputs=(x,), outputs=(value,), permutation=order))
    return value


def _nearest(node: Node, mode: str, size: int, places: Sequence[Fraction]) -> tuple[int, ...]:
    sources = nearest_sources(mode, size, places)
    if sources is None:
        node.malformed(f"nearest_mode '{mode}' does not exist")
    return sources


def nearest_sources(mode: str, size: int, places: Sequence[Fraction]) -> tuple[int, ...] | None:
    """The input index that each output position copies; None if there is no such mode."""
    match mode:
        case "round_prefer_floor":
            chosen = [math.ceil(place - HALF) for place in places]
        case "round_prefer_ceil":
            chosen = [math.floor(place + HALF) for place in places]
        case "floor":
            chosen = [math.floor(place) for place in places]
        case "ceil":
            chosen = [math.ceil(place) for place in places]
        case _:
            return None
    return tuple(min(max(index, 0), size - 1) for index in chosen)


def linear_taps(size: int, places: Sequence[Fraction]) -> LinearTaps:
    """Taps with coordinates beyond the edge moved onto it."""
    inside = [min(max(place, Fraction(0)), Fraction(size - 1)) for place in places]
    first = [math.floor(place) for place in inside]
    return LinearTaps(
        first=tuple(first),
        second=tuple(min(index + 1, size - 1) for index in first),
        weights=tuple(place - index for place, index in zip(inside, first, strict=True)),
    )
