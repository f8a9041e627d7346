"""Slice, Split and Gather with constant indices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.layout import emit_reshape
from qcompile.importer.operators.window import normal_axes, normal_axis
from qcompile.ops.concat import Concat
from qcompile.ops.gather import Gather
from qcompile.ops.slice import Slice
from qcompile.types import Shape

MOST_RUNS = 64
"""Of the indices of a Gather that becomes slices."""
MOST_INDICES = 1 << 20


def convert_slice(node: Node, builder: Builder) -> None:
    """Slice: attributes up to opset 9, inputs since."""
    x = builder.movable(node)
    shape = builder.shape(x)
    rank = len(shape)
    if node.opset < 10:
        begins, ends = node.integers("starts", ()), node.integers("ends", ())
        axes = node.integers("axes", tuple(range(len(begins))))
        strides = (1,) * len(begins)
    else:
        begins = builder.integers(node, 1, "starts") or ()
        ends = builder.integers(node, 2, "ends") or ()
        axes = builder.integers(node, 3, "axes") or tuple(range(len(begins)))
        strides = builder.integers(node, 4, "steps") or (1,) * len(begins)
    if not len(begins) == len(ends) == len(axes) == len(strides):
        node.malformed("starts, ends, axes and steps have different lengths")
    starts, sizes, steps = [0] * rank, list(shape), [1] * rank
    for axis, begin, end, step in zip(
        normal_axes(node, axes, rank), begins, ends, strides, strict=True
    ):
        if step == 0:
            node.malformed("a step is 0")
        first, last, step = slice(begin, end, step).indices(shape[axis])
        starts[axis], steps[axis] = first, step
        sizes[axis] = len(range(first, last, step))
    if not all(sizes):
        node.refuse(f"takes nothing of shape {list(shape)}", "check --input-shape")
    _emit(node, builder, x, (tuple(starts), tuple(sizes), tuple(steps)), node.name, node.output)


def convert_split(node: Node, builder: Builder) -> None:
    """Split: one `Slice` for each output that is used."""
    x = builder.movable(node)
    shape = builder.shape(x)
    axis = normal_axis(node, node.integer("axis", 0), len(shape))
    parts = len(node.outputs)
    if node.opset < 13:
        lengths = node.integers("split", ()) or None
    else:
        lengths = builder.integers(node, 1, "split")
    if lengths is None:
        if node.opset >= 18 and node.integer("num_outputs", parts) != parts:
            node.malformed(f"num_outputs is not the number of its {parts} outputs")
        chunk = math.ceil(shape[axis] / parts)
        last = shape[axis] - chunk * (parts - 1)
        if last < 1 or (last != chunk and node.opset < 18):
            node.malformed(f"axis of size {shape[axis]} does not split into {parts} parts")
        lengths = (chunk,) * (parts - 1) + (last,)
    if len(lengths) != parts or sum(lengths) != shape[axis] or min(lengths) < 0:
        node.malformed(f"lengths {list(lengths)[:16]} do not fit the axis of size {shape[axis]}")
    offset = 0
    for index, (output, length) in enumerate(zip(node.outputs, lengths, strict=True)):
        if node.uses_output(index, builder.readers) and output:
            if length == 0:
                node.refuse(f"output {index} is empty", "remove empty outputs of the Split")
            starts = tuple(offset if a == axis else 0 for a in range(len(shape)))
            sizes = tuple(length if a == axis else size for a, size in enumerate(shape))
            name = node.name if parts == 1 else builder.part_name(node, str(index))
            _emit(node, builder, x, (starts, sizes, (1,) * len(shape)), name, output)
        offset += length


def convert_gather(node: Node, builder: Builder) -> None:
    """Gather by constant indices: a `Slice` for each run of evenly spaced ones, then a `Concat`;
    a `Gather` where there are many runs.

    The axis goes with a single index, and becomes several with an array of them.
    """
    x = builder.movable(node)
    shape = builder.shape(x)
    axis = normal_axis(node, node.integer("axis", 0), len(shape))
    data = builder.required(node, 1, "indices")
    if data.dtype.kind not in "iu" or data.size == 0:
        node.malformed(f"indices {data.dtype}{list(data.shape)} are no integers")
    indices = [int(index) for index in data.reshape(-1)]
    if not all(-shape[axis] <= index < shape[axis] for index in indices):
        node.malformed(f"an index lies outside the axis of size {shape[axis]}")
    runs = _runs([index % shape[axis] for index in indices])
    joined = data.ndim == 1
    parts: list[str] = []
    if len(runs) > MOST_RUNS:
        if len(indices) > MOST_INDICES:
            node.refuse(f"{len(indices)} indices, the limit is {MOST_INDICES}", "use Resize")
        name, value = (node.name, node.output) if joined else builder.part(node, "gathered")
        order = tuple(index % shape[axis] for index in indices)
        builder.move(Gather(name=name, inputs=(x,), outputs=(value,), axis=axis, indices=order))
        parts, runs = [value], []
    for run in runs:
        starts = tuple(run.start if a == axis else 0 for a in range(len(shape)))
        sizes = tuple(len(run) if a == axis else size for a, size in enumerate(shape))
        steps = tuple(run.step if a == axis else 1 for a in range(len(shape)))
        if joined and len(runs) == 1:
            name, value = node.name, node.output
        else:
            name, value = builder.part(node, "slice")
        _emit(node, builder, x, (starts, sizes, steps), name, value)
        parts.append(value)
    if len(parts) > 1:
        name, value = (node.name, node.output) if joined else builder.part(node, "gathered")
        builder.move(Concat(name=name, inputs=tuple(parts), outputs=(value,), axis=axis))
        parts = [value]
    if not joined:
        emit_reshape(node, builder, parts[0], shape[:axis] + data.shape + shape[axis + 1 :])


def _runs(indices: Sequence[int]) -> list[range]:
    """The indices as evenly spaced runs, each as long as possible."""
    runs = []
    first = 0
    while first < len(indices):
        last = first + 1
        step = indices[last] - indices[first] if last < len(indices) else 1
        if step == 0:
            step = 1
        else:
            while last < len(indices) and indices[last] - indices[last - 1] == step:
                last += 1
        count = last - first
        runs.append(range(indices[first], indices[first] + step * count, step))
        first = last
    return runs


def _emit(
    node: Node,
    builder: Builder,
    x: str,
    region: tuple[Shape, Shape, Shape],
    name: str,
    output: str,
) -> None:
    starts, sizes, steps = region
    builder.move(
        Slice(name=name, inputs=(x,), outputs=(output,), starts=starts, sizes=sizes, steps=steps)
    )
