"""A slow second implementation of the integer stage, straight from the operators' docstrings.

Pure Python integers and loops: nothing here can overflow, and nothing is shared with `qcompile.sim`
except the definitions in `qcompile.numerics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qcompile import ops
from qcompile.graph import Graph, Op
from qcompile.numerics import Epilogue, Thresholds, requantize, threshold
from qcompile.types import Array, Shape, TensorType

Position = tuple[int, ...]
Reference = Callable[[Any, Sequence[Array], TensorType], Array]


def select(condition: bool, if_true: int, if_false: int) -> int:
    return if_true if condition else if_false


def at(vector: Sequence[int], channel: int) -> int:
    return vector[channel if len(vector) > 1 else 0]


def finish(epilogue: Epilogue, acc: int, channel: int) -> int:
    """The epilogue of one sum."""
    if isinstance(epilogue, Thresholds):
        limits = [at(row, channel) for row in epilogue.thresholds]
        return int(threshold(acc, limits, epilogue.low, epilogue.step, select))
    a = min(max(acc, at(epilogue.acc_low, channel)), at(epilogue.acc_high, channel))
    multiplier, bias = at(epilogue.multipliers, channel), at(epilogue.biases, channel)
    negative = epilogue.negative
    if negative is not None and a < at(negative.pivots, channel):
        multiplier = at(negative.multipliers, channel)
        bias = at(negative.biases, channel)
    shift = at(epilogue.shifts, channel)
    low, high = at(epilogue.lows, channel), at(epilogue.highs, channel)
    return int(requantize(a, multiplier, bias, shift, low, high, select))


def positions(shape: Shape) -> itertools.product[Position]:
    return itertools.product(*(range(size) for size in shape))


def inside(position: Sequence[int], shape: Sequence[int]) -> bool:
    return all(0 <= p < size for p, size in zip(position, shape, strict=True))


def sums(op: Any, output: TensorType, acc: Callable[[Position], int]) -> Array:
    """Every output element: the epilogue of `acc(position)`; checks the proven accumulator."""
    result = np.empty(output.shape, output.integer.storage)
    axis = op.channel_axis(output.rank)
    for position in positions(output.shape):
        value = acc(position)
        assert op.accumulator.low <= value <= op.accumulator.high, "sum outside its accumulator"
        code = finish(op.epilogue, value, position[axis])
        assert output.integer.low <= code <= output.integer.high, "code outside its type"
        if output.limits is not None:
            codes = output.limits.at(position[1])
            assert codes.low <= code <= codes.high, "code outside its limits"
        result[position] = code
    return result


def broadcast(position: Position, shape: Shape) -> Position:
    tail = position[len(position) - len(shape) :]
    return tuple(0 if size == 1 else p for p, size in zip(tail, shape, strict=True))


def conv(op: ops.Conv, inputs: Sequence[Array], output: TensorType) -> Array:
    x, w = inputs
    per_group = w.shape[0] // op.groups

    def acc(position: Position) -> int:
        n, m, *place = position
        total = 0
        for c in range(w.shape[1]):
            channel = (m // per_group) * w.shape[1] + c
            for tap in positions(w.shape[2:]):
                source = tuple(
                    p * stride - begin + k * dilation
                    for p, stride, begin, k, dilation in zip(
                        place, op.strides, op.pads_begin, tap, op.dilations, strict=True
                    )
                )
                if inside(source, x.shape[2:]):
                    total += int(x[(n, channel, *source)]) * int(w[(m, c, *tap)])
        return total

    return sums(op, output, acc)


def conv_transpose(op: ops.ConvTranspose, inputs: Sequence[Array], output: TensorType) -> Array:
    x, w = inputs
    inputs_of_group = w.shape[0] // op.groups
    outputs_of_group = w.shape[1]

    def acc(position: Position) -> int:
        n, m, *place = position
        group, j = divmod(m, outputs_of_group)
        total = 0
        for tap in positions(w.shape[2:]):
            offsets = [
                p + begin - k * dilation
                for p, begin, k, dilation in zip(
                    place, op.pads_begin, tap, op.dilations, strict=True
                )
            ]
            if any(offset % stride for offset, stride in zip(offsets, op.strides, strict=True)):
                continue
            source = tuple(o // stride for o, stride in zip(offsets, op.strides, strict=True))
            if not inside(source, x.shape[2:]):
                continue
            for c in range(inputs_of_group):
                channel = group * inputs_of_group + c
                total += int(x[(n, channel, *source)]) * int(w[(channel, j, *tap)])
        return total

    return sums(op, output, acc)


def matmul(op: ops.MatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    x, w = inputs
    return sums(
        op,
        output,
        lambda p: sum(int(x[(*p[:-1], k)]) * int(w[k, p[-1]]) for k in range(w.shape[0])),
    )


def batch_matmul(op: ops.BatchMatMul, inputs: Sequence[Array], output: TensorType) -> Array:
    a, b = inputs

    def acc(position: Position) -> int:
        row, column = position[-2:]
        left = broadcast(position[:-2], a.shape[:-2])
        right = broadcast(position[:-2], b.shape[:-2])
        return sum(int(a[*left, row, k]) * int(b[*right, k, column]) for k in range(a.shape[-1]))

    return sums(op, output, acc)


def affine(op: ops.Affine, inputs: Sequence[Array], output: TensorType) -> Array:
    x, scale = inputs
    return sums(op, output, lambda p: int(scale[p[1]]) * int(x[p]))


def rescale(op: ops.Rescale, inputs: Sequence[Array], output: TensorType) -> Array:
    return sums(op, output, lambda p: int(inputs[0][p]))


def add(op: ops.Add, inputs: Sequence[Array], output: TensorType) -> Array:
    a, b = inputs
    first, second = op.weights
    return sums(
        op,
        output,
        lambda p: first * int(a[broadcast(p, a.shape)]) + second * int(b[broadcast(p, b.shape)]),
    )


def mul(op: ops.Mul, inputs: Sequence[Array], output: TensorType) -> Array:
    a, b = inputs
    return sums(op, output, lambda p: int(a[broadcast(p, a.shape)]) * int(b[broadcast(p, b.shape)]))


def div(op: ops.Div, inputs: Sequence[Array], output: TensorType) -> Array:
    a, b = inputs

    def acc(position: Position) -> int:
        divisor = int(b[broadcast(position, b.shape)])
        return (int(a[broadcast(position, a.shape)]) << op.fraction_bits) // (divisor or 1)

    return sums(op, output, acc)


def average_pool(op: ops.AveragePool, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    spatial = x.shape[2:]

    def window(place: Sequence[int]) -> list[Position]:
        return [
            tuple(
                p * stride - begin + k * dilation
                for p, stride, begin, k, dilation in zip(
                    place, op.strides, op.pads_begin, tap, op.dilations, strict=True
                )
            )
            for tap in positions(op.kernel)
        ]

    def counts(source: Position) -> bool:
        if not op.count_include_pad:
            return inside(source, spatial)
        return all(
            -begin <= p < size + end
            for p, begin, size, end in zip(source, op.pads_begin, spatial, op.pads_end, strict=True)
        )

    divisors = {
        place: max(1, sum(counts(source) for source in window(place)))
        for place in positions(output.shape[2:])
    }
    common = op.common_divisor(spatial, output.shape[2:])
    assert all(common % divisor == 0 for divisor in divisors.values())

    def acc(position: Position) -> int:
        n, c, *place = position
        total = sum(int(x[(n, c, *source)]) for source in window(place) if inside(source, spatial))
        return total * (common // divisors[tuple(place)])

    return sums(op, output, acc)


def reduce_mean(op: ops.ReduceMean, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]

    def acc(position: Position) -> int:
        rest = iter(position)
        ranges = []
        for axis, size in enumerate(x.shape):
            if axis in op.axes:
                ranges.append(range(size))
                if op.keepdims:
                    next(rest)
            else:
                index = next(rest)
                ranges.append(range(index, index + 1))
        return sum(int(x[source]) for source in itertools.product(*ranges))

    return sums(op, output, acc)


def linear_resize(op: ops.LinearResize, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    weights = [taps.integer_weights() for taps in op.taps]

    def acc(position: Position) -> int:
        n, c, *place = position
        total = 0
        for corner in itertools.product((0, 1), repeat=len(place)):
            weight = math.prod(weights[i][p][corner[i]] for i, p in enumerate(place))
            source = tuple(
                (op.taps[i].second if corner[i] else op.taps[i].first)[p]
                for i, p in enumerate(place)
            )
            total += weight * int(x[(n, c, *source)])
        return total

    return sums(op, output, acc)


def group_norm(op: ops.GroupNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    widths = op.widths
    assert widths is not None
    size = x.shape[1] // op.groups
    statistics = {}
    for n, group in positions((x.shape[0], op.groups)):
        values = [int(v) for v in x[n, group * size : (group + 1) * size].reshape(-1)]
        count, s1, s2 = len(values), sum(values), sum(v * v for v in values)
        variance = count * s2 - s1 * s1
        root = math.isqrt((variance << (2 * widths.root_bits)) + widths.epsilon)
        statistics[n, group] = count, s1, (1 << widths.inverse_bits) // root

    def acc(position: Position) -> int:
        count, s1, inverse = statistics[position[0], position[1] // size]
        return ((count * int(x[position]) - s1) * inverse) >> widths.drop_bits

    return sums(op, output, acc)


def layer_norm(op: ops.LayerNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    x, widths = inputs[0], op.widths
    assert widths is not None
    count = x.shape[op.axis]

    def acc(position: Position) -> int:
        before, after = position[: op.axis], position[op.axis + 1 :]
        row = [int(x[*before, k, *after]) for k in range(count)]
        s1, s2 = sum(row), sum(v * v for v in row)
        root = math.isqrt(((count * s2 - s1 * s1) << (2 * widths.root_bits)) + widths.epsilon)
        inverse = (1 << widths.inverse_bits) // root
        return ((count * int(x[position]) - s1) * inverse) >> widths.drop_bits

    return sums(op, output, acc)


def local_attention(op: ops.LocalAttention2d, inputs: Sequence[Array], output: TensorType) -> Array:
    q, k, v, relative = inputs
    widths = op.widths
    assert widths is not None
    depth, width = q.shape[1] // op.heads, v.shape[1] // op.heads
    half = (1 << widths.index_shift) // 2
    offsets = list(positions(op.kernel))
    seen: dict[Position, list[int]] = {}

    def at_offset(data: Array, n: int, c: int, y: int, x: int, offset: Position) -> int:
        place = (y - op.pads_begin[0] + offset[0], x - op.pads_begin[1] + offset[1])
        return int(data[n, c, *place]) if inside(place, data.shape[2:]) else 0

    def score(n: int, head: int, y: int, x: int, offset: Position) -> int:
        total = 0
        for c in range(head * depth, (head + 1) * depth):
            key = at_offset(k, n, c, y, x, offset) * 2**widths.key_bits
            total += int(q[n, c, y, x]) * (key + int(relative[c, *offset]))
        return total

    def weights(n: int, head: int, y: int, x: int) -> list[int]:
        scores = [score(n, head, y, x, offset) for offset in offsets]
        indices = [(max(scores) - s + half) // 2**widths.index_shift for s in scores]
        powers = [widths.powers[min(index, len(widths.powers) - 1)] for index in indices]
        whole = sum(powers)
        return [(power * widths.levels + whole // 2) // whole for power in powers]

    def acc(position: Position) -> int:
        n, c, y, x = position
        place = (n, c // width, y, x)
        if place not in seen:
            seen[place] = weights(*place)
        pairs = zip(seen[place], offsets, strict=True)
        return sum(a * at_offset(v, n, c, y, x, offset) for a, offset in pairs)

    return sums(op, output, acc)


def softmax(op: ops.Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    x = np.moveaxis(inputs[0], op.axis, -1)
    mask = np.ones(x.shape, int)
    if len(inputs) > 1:
        mask = np.moveaxis(np.broadcast_to(inputs[1], inputs[0].shape), op.axis, -1)
    result = np.zeros(x.shape, output.integer.storage)
    for position in positions(x.shape[:-1]):
        row = {k: int(v) for k, v in enumerate(x[position]) if mask[*position, k]}
        powers = {k: op.table[max(row.values()) - v] for k, v in row.items()}
        total = sum(powers.values())
        for k, e in powers.items():
            result[*position, k] = (e * op.levels + total // 2) // total
    return np.moveaxis(result, -1, op.axis)


def lookup(op: ops.Lookup, inputs: Sequence[Array], output: TensorType) -> Array:
    x, table = inputs
    result = np.empty(x.shape, table.dtype)
    for position in positions(x.shape):
        row = table if table.ndim == 1 else table[position[1]]
        result[position] = row[int(x[position]) - op.lowest]
    return result


def quantize(op: ops.Quantize, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(x.shape, output.integer.storage)
    for position in positions(x.shape):
        channel = position[1]
        value = float(x[position])
        inverse = op.inverse[channel if len(op.inverse) > 1 else 0]
        offset = op.offset[channel if len(op.offset) > 1 else 0]
        scaled = value * inverse + offset
        if math.isnan(scaled):
            code = 0
        elif math.isinf(scaled):
            code = op.high if scaled > 0 else op.low
        else:
            code = math.floor(scaled)
        result[position] = min(max(code, op.low), op.high)
    return result


def dequantize(op: ops.Dequantize, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(x.shape, np.float32)
    for position in positions(x.shape):
        result[position] = np.float32(int(x[position])) * np.float32(op.scale)
    return result


def max_pool(op: ops.MaxPool, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(output.shape, x.dtype)
    for position in positions(output.shape):
        n, c, *place = position
        seen = []
        for tap in positions(op.kernel):
            source = tuple(
                p * stride - begin + k * dilation
                for p, stride, begin, k, dilation in zip(
                    place, op.strides, op.pads_begin, tap, op.dilations, strict=True
                )
            )
            if inside(source, x.shape[2:]):
                seen.append(int(x[(n, c, *source)]))
        result[position] = max(seen)
    return result


def max_pool_index(op: ops.MaxPoolIndex, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(output.shape, output.integer.storage)
    for position in positions(output.shape):
        seen = {}
        for index, tap in enumerate(positions(op.kernel)):
            source = window_place(op, position[2:], tap)
            if inside(source, x.shape[2:]):
                seen[index] = int(x[*position[:2], *source])
        result[position] = next(i for i, value in seen.items() if value == max(seen.values()))
    return result


def max_unpool(op: ops.MaxUnpool, inputs: Sequence[Array], output: TensorType) -> Array:
    x, indices = inputs
    result = np.zeros(output.shape, x.dtype)
    taps = list(positions(op.kernel))
    for position in positions(x.shape):
        index = int(indices[position])
        if index < len(taps):
            target = window_place(op, position[2:], taps[index])
            if inside(target, op.spatial):
                result[*position[:2], *target] = x[position]
    return result


def window_place(
    op: ops.MaxPoolIndex | ops.MaxUnpool, place: Sequence[int], tap: Sequence[int]
) -> Position:
    rules = zip(place, op.strides, op.pads_begin, tap, op.dilations, strict=True)
    return tuple(p * stride - begin + k * dilation for p, stride, begin, k, dilation in rules)


def moved(output: TensorType, x: Array, source: Callable[[Position], Position]) -> Array:
    result = np.empty(output.shape, x.dtype)
    for position in positions(output.shape):
        result[position] = x[source(position)]
    return result


def nearest_resize(op: ops.NearestResize, inputs: Sequence[Array], output: TensorType) -> Array:
    return moved(
        output,
        inputs[0],
        lambda p: (*p[:2], *(s[i] for s, i in zip(op.sources, p[2:], strict=True))),
    )


def concat(op: ops.Concat, inputs: Sequence[Array], output: TensorType) -> Array:
    result = np.empty(output.shape, inputs[0].dtype)
    first = 0
    for x in inputs:
        for position in positions(x.shape):
            target = list(position)
            target[op.axis] += first
            result[tuple(target)] = x[position]
        first += x.shape[op.axis]
    return result


def pad(op: ops.Pad, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(output.shape, x.dtype)
    for position in positions(output.shape):
        source = tuple(p - begin for p, begin in zip(position, op.begins, strict=True))
        if op.mode is ops.PadMode.CONSTANT and not inside(source, x.shape):
            result[position] = op.code
            continue
        if op.mode is ops.PadMode.REFLECT:
            source = tuple(
                abs(p) if p < size else 2 * (size - 1) - p
                for p, size in zip(source, x.shape, strict=True)
            )
        source = tuple(min(max(p, 0), size - 1) for p, size in zip(source, x.shape, strict=True))
        result[position] = x[source]
    return result


def slice_(op: ops.Slice, inputs: Sequence[Array], output: TensorType) -> Array:
    return moved(
        output,
        inputs[0],
        lambda p: tuple(
            start + i * step for start, i, step in zip(op.starts, p, op.steps, strict=True)
        ),
    )


def gather(op: ops.Gather, inputs: Sequence[Array], output: TensorType) -> Array:
    def source(position: Position) -> Position:
        index = op.indices[position[op.axis]]
        return (*position[: op.axis], index, *position[op.axis + 1 :])

    return moved(output, inputs[0], source)


def masked_fill(op: ops.MaskedFill, inputs: Sequence[Array], output: TensorType) -> Array:
    x, mask = inputs
    result = np.empty(output.shape, output.integer.storage)
    for position in positions(output.shape):
        keeps = mask[broadcast(position, mask.shape)]
        result[position] = x[position] if keeps else op.code
    return result


def transpose(op: ops.Transpose, inputs: Sequence[Array], output: TensorType) -> Array:
    def source(position: Position) -> Position:
        result = [0] * len(position)
        for index, axis in enumerate(op.permutation):
            result[axis] = position[index]
        return tuple(result)

    return moved(output, inputs[0], source)


def reshape(op: ops.Reshape, inputs: Sequence[Array], output: TensorType) -> Array:
    flat = [inputs[0][position] for position in positions(inputs[0].shape)]
    return np.array(flat, inputs[0].dtype).reshape(output.shape)


def depth_to_space(op: ops.DepthToSpace, inputs: Sequence[Array], output: TensorType) -> Array:
    b = op.block
    channels = output.shape[1]

    def source(position: Position) -> Position:
        n, c, h, w = position
        row, column = h % b, w % b
        column_row = (c * b + row) * b + column
        depth_column_row = (row * b + column) * channels + c
        return n, column_row if op.column_major else depth_column_row, h // b, w // b

    return moved(output, inputs[0], source)


def arg_max(op: ops.ArgMax, inputs: Sequence[Array], output: TensorType) -> Array:
    x = np.moveaxis(inputs[0], op.axis, -1)
    result = np.empty(x.shape[:-1], output.integer.storage)
    for position in positions(x.shape[:-1]):
        row = [int(v) for v in x[position]]
        found = [index for index, value in enumerate(row) if value == max(row)]
        result[position] = found[-1] if op.last else found[0]
    return np.expand_dims(result, op.axis) if op.keepdims else result


def threshold_(op: ops.Threshold, inputs: Sequence[Array], output: TensorType) -> Array:
    x = inputs[0]
    result = np.empty(x.shape, output.integer.storage)
    assert op.code_limit is not None
    for position in positions(x.shape):
        result[position] = int(x[position]) > op.code_limit
    return result


REFERENCES: Mapping[type[Op], Reference] = {
    ops.Conv: conv,
    ops.ConvTranspose: conv_transpose,
    ops.MatMul: matmul,
    ops.BatchMatMul: batch_matmul,
    ops.Affine: affine,
    ops.Rescale: rescale,
    ops.Add: add,
    ops.Mul: mul,
    ops.Div: div,
    ops.AveragePool: average_pool,
    ops.ReduceMean: reduce_mean,
    ops.LinearResize: linear_resize,
    ops.GroupNorm: group_norm,
    ops.LayerNorm: layer_norm,
    ops.LocalAttention2d: local_attention,
    ops.MaxPoolIndex: max_pool_index,
    ops.MaxUnpool: max_unpool,
    ops.Softmax: softmax,
    ops.Lookup: lookup,
    ops.Quantize: quantize,
    ops.Dequantize: dequantize,
    ops.MaxPool: max_pool,
    ops.NearestResize: nearest_resize,
    ops.Concat: concat,
    ops.Pad: pad,
    ops.Slice: slice_,
    ops.Gather: gather,
    ops.MaskedFill: masked_fill,
    ops.Transpose: transpose,
    ops.Reshape: reshape,
    ops.DepthToSpace: depth_to_space,
    ops.ArgMax: arg_max,
    ops.Threshold: threshold_,
}


def run_reference(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of an integer graph."""
    values = {**graph.constants, **feeds}
    for op in graph.ops:
        inputs = [values[value] for value in op.inputs]
        values[op.output] = REFERENCES[type(op)](op, inputs, graph.output_type(op))
    return values
