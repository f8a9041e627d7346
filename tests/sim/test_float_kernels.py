"""Every float kernel against onnxruntime (or plain loops) on random shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from qcompile import ops
from qcompile.graph import Op
from qcompile.ops import Activation, LinearTaps, Pad, PadMode
from qcompile.sim.table import KERNELS
from qcompile.types import FLOAT32, UINT8, Array, Element, IntType, TensorType
from tests.importer.test_local_attention import attention

ROUNDS = 12


@dataclass
class Case:
    """An operator, its float inputs (constants last) and what it must compute."""

    op: Op
    inputs: list[Array]
    expected: Array


def run(op: Op, inputs: Sequence[Array], element: Element = FLOAT32) -> Array:
    shape = op.infer_shape([x.shape for x in inputs])
    kernel = KERNELS[type(op)]
    function = kernel.float_ if element == FLOAT32 else kernel.integer
    assert function is not None
    before = [x.copy() for x in inputs]
    result = function(op, inputs, TensorType(shape, element))
    assert result.shape == shape
    assert result.dtype == element.storage
    for x, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy, err_msg="the kernel changed an input")
    return result


def onnx_run(kind: str, inputs: Sequence[Array], opset: int = 18, **attributes: Any) -> Array:
    # an empty array stands for an optional input that is left out
    names = [f"i{index}" if x.size else "" for index, x in enumerate(inputs)]
    node = helper.make_node(kind, names, ["y"], **attributes)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape))
        for name, x in zip(names, inputs, strict=True)
        if name
    ]
    element = TensorProto.INT64 if kind == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "g", infos, [helper.make_tensor_value_info("y", element, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: x for name, x in zip(names, inputs, strict=True) if name}
    return np.asarray(session.run(None, feeds)[0])


def named(inputs: Sequence[Any]) -> dict[str, Any]:
    return {
        "name": "op",
        "inputs": tuple(f"i{index}" for index in range(len(inputs))),
        "outputs": ("y",),
    }


def ints(rng: np.random.Generator, low: int, high: int, count: int) -> tuple[int, ...]:
    """`count` random integers low..high."""
    return tuple(int(v) for v in rng.integers(low, high + 1, count))


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


def conv(rng: np.random.Generator) -> Case:
    rank = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 2, 3]))
    each, out_each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, dilations = ints(rng, 1, 3, rank), ints(rng, 1, 2, rank)
    strides, begin, end = ints(rng, 1, 3, rank), ints(rng, 0, 2, rank), ints(rng, 0, 2, rank)
    x = normal(rng, 1, groups * each, *ints(rng, 5, 9, rank))
    w = normal(rng, groups * out_each, each, *kernel)
    inputs = [x, w, normal(rng, groups * out_each)][: int(rng.integers(2, 4))]
    op = ops.Conv(
        strides=strides,
        pads_begin=begin,
        pads_end=end,
        dilations=dilations,
        groups=groups,
        **named(inputs),
    )
    expected = onnx_run(
        "Conv",
        inputs,
        strides=strides,
        pads=begin + end,
        dilations=dilations,
        group=groups,
    )
    return Case(op, inputs, expected)


def conv_transpose(rng: np.random.Generator) -> Case:
    rank = int(rng.integers(1, 3))
    groups = int(rng.choice([1, 1, 2]))
    each, out_each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, dilations = ints(rng, 1, 4, rank), ints(rng, 1, 2, rank)
    strides = kernel if rng.random() < 0.4 else ints(rng, 1, 3, rank)
    begin, end = ints(rng, 0, 1, rank), ints(rng, 0, 1, rank)
    extra = tuple(int(rng.integers(0, stride)) for stride in strides)
    x = normal(rng, 1, groups * each, *ints(rng, 3, 6, rank))
    inputs = [x, normal(rng, groups * each, out_each, *kernel), normal(rng, groups * out_each)]
    inputs = inputs[: int(rng.integers(2, 4))]
    op = ops.ConvTranspose(
        strides=strides,
        pads_begin=begin,
        pads_end=end,
        dilations=dilations,
        output_padding=extra,
        groups=groups,
        **named(inputs),
    )
    expected = onnx_run(
        "ConvTranspose",
        inputs,
        strides=strides,
        pads=begin + end,
        dilations=dilations,
        output_padding=extra,
        group=groups,
    )
    return Case(op, inputs, expected)


def matmul(rng: np.random.Generator) -> Case:
    rank, inner, outer = int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(1, 6))
    x, w = normal(rng, *ints(rng, 1, 4, rank - 1), inner), normal(rng, inner, outer)
    bias = normal(rng, outer)
    op = ops.MatMul(**named([x, w, bias]))
    return Case(op, [x, w, bias], onnx_run("MatMul", [x, w]) + bias)


def batch_matmul(rng: np.random.Generator) -> Case:
    rows, depth, columns = ints(rng, 1, 6, 3)
    batch = ints(rng, 1, 4, int(rng.integers(0, 3)))
    a, b = normal(rng, *batch, rows, depth), normal(rng, *batch[1:], depth, columns)
    return Case(ops.BatchMatMul(**named([a, b])), [a, b], onnx_run("MatMul", [a, b]))


def affine(rng: np.random.Generator) -> Case:
    channels = int(rng.integers(1, 6))
    x = normal(rng, 1, channels, *ints(rng, 1, 5, int(rng.integers(0, 4))))
    scale, shift = normal(rng, channels), normal(rng, channels)
    mean, variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    expected = onnx_run("BatchNormalization", [x, scale, shift, mean, variance], epsilon=0.0)
    op = ops.Affine(**named([x, scale, shift]))
    return Case(op, [x, scale, shift], expected)


def rescale(rng: np.random.Generator) -> Case:
    channels = int(rng.integers(1, 6))
    x = 4 * normal(rng, 1, channels, *ints(rng, 1, 5, 2))
    slope = rng.random(channels, dtype=np.float32)
    activation = Activation(slope=tuple(slope.tolist()), low=-1.0, high=2.5)
    expected = np.clip(onnx_run("PRelu", [x, slope.reshape(-1, 1, 1)]), -1.0, 2.5)
    return Case(ops.Rescale(activation=activation, **named([x])), [x], expected)


def fake_quantize(rng: np.random.Generator) -> Case:
    x = 4 * normal(rng, 1, *ints(rng, 1, 5, 3))
    scale = np.float32(rng.uniform(0.01, 0.1))
    zero = int(rng.integers(0, 256))
    expected = scale * np.clip(np.rint(x / scale), -zero, 255 - zero).astype(np.float32)
    op = ops.FakeQuantize(scale=float(scale), low=-zero, high=255 - zero, **named([x]))
    return Case(op, [x], expected)


def broadcasting(rng: np.random.Generator) -> tuple[Array, Array]:
    shape = (1, *ints(rng, 1, 5, 3))
    sizes = [size if rng.random() < 0.6 else 1 for size in shape]
    a, b = normal(rng, *shape), normal(rng, *sizes)
    return (a, b) if rng.random() < 0.5 else (b, a)


def add(rng: np.random.Generator) -> Case:
    a, b = broadcasting(rng)
    return Case(ops.Add(**named([a, b])), [a, b], onnx_run("Add", [a, b]))


def subtract(rng: np.random.Generator) -> Case:
    a, b = broadcasting(rng)
    return Case(ops.Add(weights=(1, -1), **named([a, b])), [a, b], onnx_run("Sub", [a, b]))


def mul(rng: np.random.Generator) -> Case:
    a, b = broadcasting(rng)
    op = ops.Mul(activation=ops.RELU, **named([a, b]))
    return Case(op, [a, b], np.maximum(onnx_run("Mul", [a, b]), 0))


def div(rng: np.random.Generator) -> Case:
    a, b = broadcasting(rng)
    return Case(ops.Div(**named([a, b])), [a, b], onnx_run("Div", [a, b]))


def pool_geometry(rng: np.random.Generator) -> tuple[Array, dict[str, Any], dict[str, Any]]:
    rank = int(rng.integers(1, 4))
    kernel = ints(rng, 1, 3, rank)
    begin = tuple(int(rng.integers(0, k)) for k in kernel)
    end = tuple(int(rng.integers(0, k)) for k in kernel)
    strides, dilations = ints(rng, 1, 3, rank), ints(rng, 1, 2, rank)
    ceil_mode = bool(rng.integers(0, 2))
    x = normal(rng, 1, int(rng.integers(1, 4)), *ints(rng, 6, 10, rank)) - 3
    ours = {
        "kernel": kernel,
        "strides": strides,
        "pads_begin": begin,
        "pads_end": end,
        "dilations": dilations,
        "ceil_mode": ceil_mode,
    }
    theirs = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": begin + end,
        "dilations": dilations,
        "ceil_mode": int(ceil_mode),
    }
    return x, ours, theirs


def max_pool(rng: np.random.Generator) -> Case:
    x, ours, theirs = pool_geometry(rng)
    return Case(ops.MaxPool(**ours, **named([x])), [x], onnx_run("MaxPool", [x], **theirs))


def local_attention(rng: np.random.Generator) -> Case:
    heads = int(rng.integers(1, 4))
    channels, values = (heads * int(n) for n in rng.integers(1, 4, 2))
    kernel, pads = ints(rng, 1, 4, 2), ints(rng, 0, 3, 2)
    out = ints(rng, 1, 4, 2)
    size = tuple(max(1, o + k - 1 - p) for o, k, p in zip(out, kernel, pads, strict=True))
    ends = tuple(o + k - 1 - p - n for o, k, p, n in zip(out, kernel, pads, size, strict=True))
    ends = tuple(max(0, end) for end in ends)
    out = tuple(n + p + e - k + 1 for n, p, e, k in zip(size, pads, ends, kernel, strict=True))
    q, k = normal(rng, 1, channels, *out), normal(rng, 1, channels, *size)
    v, relative = normal(rng, 1, values, *size), normal(rng, channels, *kernel)
    scale = float(rng.uniform(0.2, 2))
    inputs = [q, k, v, relative]
    expected = attention(q, k, v, relative, heads, pads, scale)
    if rng.random() < 0.5:
        inputs += [normal(rng, values), normal(rng, values)]
        expected = expected * inputs[4].reshape(-1, 1, 1) + inputs[5].reshape(-1, 1, 1)
    op = ops.LocalAttention2d(
        kernel=(kernel[0], kernel[1]),
        pads_begin=(pads[0], pads[1]),
        pads_end=(ends[0], ends[1]),
        heads=heads,
        score_scale=scale,
        **named(inputs),
    )
    return Case(op, inputs, expected)


def max_unpool(rng: np.random.Generator) -> Case:
    kernel, sizes = ints(rng, 1, 4, 2), ints(rng, 1, 4, 2)
    x = normal(rng, 1, 2, *sizes)
    found = rng.integers(0, math.prod(kernel), x.shape)
    spatial = tuple(size * k for size, k in zip(sizes, kernel, strict=True))
    expected = np.zeros((1, 2, *spatial), np.float32)
    for n, c, row, column in np.ndindex(*x.shape):
        down, right = divmod(int(found[n, c, row, column]), kernel[1])
        place = (n, c, row * kernel[0] + down, column * kernel[1] + right)
        expected[place] = x[n, c, row, column]
    op = ops.MaxUnpool(
        kernel=kernel,
        strides=kernel,
        pads_begin=(0, 0),
        dilations=(1, 1),
        spatial=spatial,
        **named([x, found]),
    )
    return Case(op, [x, found], expected)


def average_pool(rng: np.random.Generator) -> Case:
    """Against plain loops over windows, which state the divisor rule once more."""
    x, ours, _ = pool_geometry(rng)
    include = bool(rng.integers(0, 2))
    op = ops.AveragePool(**ours, count_include_pad=include, **named([x]))
    shape = op.infer_shape([x.shape])
    expected = np.zeros(shape, np.float64)
    for position in np.ndindex(*shape[2:]):
        total, count = np.zeros(shape[1]), 0
        for tap in np.ndindex(*op.kernel):
            where = [
                p * stride - begin + t * dilation
                for p, stride, begin, t, dilation in zip(
                    position, op.strides, op.pads_begin, tap, op.dilations, strict=True
                )
            ]
            inside = all(0 <= w < size for w, size in zip(where, x.shape[2:], strict=True))
            padded = all(
                -begin <= w < size + end
                for w, size, begin, end in zip(
                    where, x.shape[2:], op.pads_begin, op.pads_end, strict=True
                )
            )
            if inside:
                total += x[(0, slice(None), *where)]
            count += padded if include else inside
        expected[(0, slice(None), *position)] = total / max(1, count)
    return Case(op, [x], expected)


def reduce_mean(rng: np.random.Generator) -> Case:
    x = normal(rng, 1, *ints(rng, 1, 5, 3))
    axes = tuple(sorted(int(a) for a in rng.choice(4, int(rng.integers(1, 4)), replace=False)))
    keep = bool(rng.integers(0, 2))
    expected = onnx_run("ReduceMean", [x], opset=13, axes=axes, keepdims=int(keep))
    return Case(ops.ReduceMean(axes=axes, keepdims=keep, **named([x])), [x], expected)


def linear_resize(rng: np.random.Generator) -> Case:
    x = normal(rng, 1, int(rng.integers(1, 4)), *ints(rng, 2, 6, 2))
    sizes = ints(rng, 2, 9, 2)
    taps = []
    for size, new in zip(x.shape[2:], sizes, strict=True):
        first, weights = [], []
        for p in range(new):
            source = Fraction(p * (size - 1), max(1, new - 1))
            first.append(int(source))
            weights.append(source - int(source))
        second = tuple(min(index + 1, size - 1) for index in first)
        taps.append(LinearTaps(tuple(first), second, tuple(weights)))
    target = np.array((1, x.shape[1], *sizes), np.int64)
    empty = np.zeros(0, np.float32)
    expected = onnx_run(
        "Resize",
        [x, empty, empty, target],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    return Case(ops.LinearResize(taps=tuple(taps), **named([x])), [x], expected)


def nearest_resize(rng: np.random.Generator) -> Case:
    x = normal(rng, 1, int(rng.integers(1, 4)), *ints(rng, 2, 6, 2))
    factors = ints(rng, 1, 3, 2)
    scales = np.array((1, 1, *factors), np.float32)
    expected = onnx_run(
        "Resize",
        [x, np.zeros(0, np.float32), scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    sources = tuple(
        tuple(p // factor for p in range(size * factor))
        for size, factor in zip(x.shape[2:], factors, strict=True)
    )
    return Case(ops.NearestResize(sources=sources, **named([x])), [x], expected)


def group_norm(rng: np.random.Generator) -> Case:
    channels = int(rng.integers(1, 6))
    x = 3 * normal(rng, 1, channels, *ints(rng, 2, 6, int(rng.integers(1, 4)))) + 100
    scale, shift = normal(rng, channels), normal(rng, channels)
    # In float64: onnxruntime's own float32 statistics are less exact than the kernel's.
    y = x.astype(np.float64)
    axes = tuple(range(2, x.ndim))
    groups = channels
    if channels % 2 == 0 and rng.random() < 0.5:
        groups = channels // 2
        y = y.reshape(1, groups, 2, *x.shape[2:])
        axes = tuple(range(2, x.ndim + 1))
    mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
    y = ((y - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    spread = (-1, *(1,) * (x.ndim - 2))
    expected = y * scale.reshape(spread) + shift.reshape(spread)
    inputs = [x, scale, shift]
    return Case(ops.GroupNorm(groups=groups, epsilon=1e-3, **named(inputs)), inputs, expected)


def concat(rng: np.random.Generator) -> Case:
    axis = int(rng.integers(0, 4))
    shape = list(ints(rng, 1, 4, 4))
    parts = []
    for size in ints(rng, 1, 4, int(rng.integers(1, 4))):
        shape[axis] = size
        parts.append(normal(rng, *shape))
    return Case(ops.Concat(axis=axis, **named(parts)), parts, onnx_run("Concat", parts, axis=axis))


def pad(rng: np.random.Generator) -> Case:
    x = normal(rng, 1, *ints(rng, 3, 6, 3))
    begins, ends = (0, *ints(rng, 0, 2, 3)), (0, *ints(rng, 0, 2, 3))
    mode = PadMode(rng.choice([mode.value for mode in PadMode]))
    value = np.float32(rng.standard_normal())
    expected = onnx_run(
        "Pad",
        [x, np.array(begins + ends, np.int64), np.array(value)],
        mode=mode.value,
    )
    op = Pad(begins=begins, ends=ends, mode=mode, value=float(value), **named([x]))
    return Case(op, [x], expected)


def slice_(rng: np.random.Generator) -> Case:
    x = normal(rng, *ints(rng, 1, 6, 4))
    starts, sizes, steps, stops = [], [], [], []
    for size in x.shape:
        step = int(rng.choice([-2, -1, 1, 2]))
        start = int(rng.integers(0, size))
        room = (size - 1 - start) // step if step > 0 else start // -step
        count = int(rng.integers(1, room + 2))
        stop = start + (count - 1) * step + (1 if step > 0 else -1)
        starts.append(start)
        sizes.append(count)
        steps.append(step)
        stops.append(stop if stop >= 0 else -(10**6))
    vectors = [np.array(v, np.int64) for v in (starts, stops, range(4), steps)]
    op = ops.Slice(starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps), **named([x]))
    return Case(op, [x], onnx_run("Slice", [x, *vectors]))


def transpose(rng: np.random.Generator) -> Case:
    x = normal(rng, *ints(rng, 1, 5, 4))
    order = tuple(int(a) for a in rng.permutation(4))
    op = ops.Transpose(permutation=order, **named([x]))
    return Case(op, [x], onnx_run("Transpose", [x], perm=order))


def reshape(rng: np.random.Generator) -> Case:
    a, b, c = ints(rng, 1, 5, 3)
    x = normal(rng, 1, a, b, c)
    expected = onnx_run("Reshape", [x, np.array((1, a * b, c), np.int64)])
    return Case(ops.Reshape(shape=(1, a * b, c), **named([x])), [x], expected)


def depth_to_space(rng: np.random.Generator) -> Case:
    block = int(rng.integers(1, 4))
    x = normal(rng, 1, block * block * int(rng.integers(1, 4)), *ints(rng, 1, 4, 2))
    column = bool(rng.integers(0, 2))
    mode = "CRD" if column else "DCR"
    op = ops.DepthToSpace(block=block, column_major=column, **named([x]))
    return Case(op, [x], onnx_run("DepthToSpace", [x], blocksize=block, mode=mode))


def layer_norm(rng: np.random.Generator) -> Case:
    x = 3 * normal(rng, *ints(rng, 2, 6, int(rng.integers(2, 5)))) + 10
    axis = int(rng.choice([1, x.ndim - 1]))
    scale, shift = normal(rng, x.shape[axis]), normal(rng, x.shape[axis])
    last = np.moveaxis(x, axis, -1)
    expected = onnx_run("LayerNormalization", [last, scale, shift], epsilon=1e-3)
    op = ops.LayerNorm(axis=axis, epsilon=1e-3, **named([x, scale, shift]))
    return Case(op, [x, scale, shift], np.moveaxis(expected, -1, axis))


def gather(rng: np.random.Generator) -> Case:
    x = normal(rng, *ints(rng, 1, 5, 3))
    axis = int(rng.integers(0, 3))
    indices = ints(rng, 0, x.shape[axis] - 1, 6)
    op = ops.Gather(axis=axis, indices=indices, **named([x]))
    return Case(op, [x], onnx_run("Gather", [x, np.array(indices)], axis=axis))


def masked_fill(rng: np.random.Generator) -> Case:
    x = normal(rng, *ints(rng, 1, 5, 3))
    mask = rng.integers(0, 2, x.shape[1:])
    fill = np.array([-2.5], np.float32)
    expected = onnx_run("Where", [np.broadcast_to(mask != 0, x.shape).copy(), x, fill])
    inputs = [x, mask.astype(np.float32)]
    return Case(ops.MaskedFill(value=-2.5, **named(inputs)), inputs, expected)


def masked_softmax(rng: np.random.Generator) -> Case:
    x = 5 * normal(rng, 1, *ints(rng, 1, 5, 3))
    axis = int(rng.integers(0, 4))
    mask = rng.integers(0, 2, x.shape[1:])
    low = np.where(mask != 0, x, np.float32(-1e30))
    alive = np.where(np.broadcast_to(mask, x.shape) != 0, onnx_run("Softmax", [low], axis=axis), 0)
    inputs = [x, mask.astype(np.float32)]
    return Case(ops.Softmax(axis=axis, **named(inputs)), inputs, alive.astype(np.float32))


def gelu(rng: np.random.Generator) -> Case:
    x = 6 * normal(rng, *ints(rng, 1, 5, 3))
    tanh = bool(rng.integers(0, 2))
    approximate = "tanh" if tanh else "none"
    expected = onnx_run("Gelu", [x], opset=20, approximate=approximate)
    return Case(ops.Gelu(tanh=tanh, **named([x])), [x], expected)


def sqrt(rng: np.random.Generator) -> Case:
    x = 6 * normal(rng, *ints(rng, 1, 5, 3))
    return Case(ops.Sqrt(**named([x])), [x], onnx_run("Sqrt", [np.maximum(x, 0)]))


def softmax(rng: np.random.Generator) -> Case:
    x = 5 * normal(rng, 1, *ints(rng, 1, 5, 3))
    axis = int(rng.integers(0, 4))
    op = ops.Softmax(axis=axis, **named([x]))
    return Case(op, [x], onnx_run("Softmax", [x], axis=axis))


UNARY: dict[type[Op], tuple[str, dict[str, float]]] = {
    ops.Sigmoid: ("Sigmoid", {}),
    ops.HardSigmoid: ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ops.HardSwish: ("HardSwish", {}),
    ops.Tanh: ("Tanh", {}),
    ops.Elu: ("Elu", {"alpha": 1.5}),
    ops.Softplus: ("Softplus", {}),
    ops.Exp: ("Exp", {}),
    ops.Erf: ("Erf", {}),
}


def pointwise(kind: type[Op]) -> Callable[[np.random.Generator], Case]:
    def case(rng: np.random.Generator) -> Case:
        x = 6 * normal(rng, *ints(rng, 1, 5, 3))
        onnx_kind, attributes = UNARY[kind]
        expected = onnx_run(onnx_kind, [x], **attributes)
        return Case(kind(**attributes, **named([x])), [x], expected)

    return case


def silu(rng: np.random.Generator) -> Case:
    x = 6 * normal(rng, *ints(rng, 1, 5, 3))
    return Case(ops.Silu(**named([x])), [x], x * onnx_run("Sigmoid", [x]))


def ternary_tanh(rng: np.random.Generator) -> Case:
    x = normal(rng, *ints(rng, 1, 5, 3))
    beta = float(rng.uniform(1, 9))
    right, left = (onnx_run("Tanh", [2 * beta * x + shift]) for shift in (-beta, beta))
    op = ops.TernaryTanh(beta=beta, **named([x]))
    return Case(op, [x], np.asarray((right + left) / 2, np.float32))


def steps(rng: np.random.Generator) -> Case:
    x = rng.integers(-4, 5, ints(rng, 1, 5, 3)).astype(np.float32) / 4
    away = onnx_run("Abs", [x]) > np.float32(0.5)
    op = ops.Steps(limits=(-0.5, 0.5), values=(-1, 0, 0, 0, 1), **named([x]))
    return Case(op, [x], onnx_run("Sign", [x]) * away)


MAKERS: dict[str, Callable[[np.random.Generator], Case]] = {
    function.__name__: function
    for function in (
        fake_quantize,
        conv,
        conv_transpose,
        matmul,
        batch_matmul,
        affine,
        rescale,
        add,
        subtract,
        mul,
        div,
        max_pool,
        max_unpool,
        local_attention,
        average_pool,
        reduce_mean,
        linear_resize,
        nearest_resize,
        group_norm,
        layer_norm,
        concat,
        pad,
        slice_,
        gather,
        masked_fill,
        transpose,
        reshape,
        depth_to_space,
        softmax,
        masked_softmax,
        gelu,
        sqrt,
        silu,
        ternary_tanh,
        steps,
    )
} | {kind.__name__: pointwise(kind) for kind in UNARY}


def cases() -> Iterator[Any]:
    for name in MAKERS:
        for index in range(ROUNDS):
            yield pytest.param(name, index, id=f"{name}-{index}")


@pytest.mark.parametrize(("name", "index"), list(cases()))
def test_float_kernel(name: str, index: int) -> None:
    rng = np.random.default_rng([index, *name.encode()])
    case = MAKERS[name](rng)
    result = run(case.op, case.inputs)
    limit = 2e-5 * max(1.0, float(np.abs(case.expected).max()))
    np.testing.assert_allclose(result, case.expected, atol=limit, rtol=1e-5)


def test_every_float_operator_is_tested() -> None:
    tested = {type(MAKERS[name](np.random.default_rng(0)).op) for name in MAKERS}
    integer_only = {ops.Lookup, ops.Quantize, ops.Dequantize}
    # Of imported models, and only until their grids are types.
    every = {*ops.OPERATORS, *ops.ANNOTATIONS}
    assert tested == every - integer_only - {ops.ArgMax, ops.MaxPoolIndex, ops.Threshold}
    assert set(KERNELS) == every


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("keepdims", [False, True])
def test_arg_max_with_ties(last: bool, keepdims: bool) -> None:
    x = np.random.default_rng(1).integers(0, 3, (1, 6, 5, 4)).astype(np.float32)
    expected = onnx_run("ArgMax", [x], axis=1, keepdims=keepdims, select_last_index=int(last))
    op = ops.ArgMax(axis=1, keepdims=keepdims, last=last, **named([x]))
    result = run(op, [x], IntType(3, signed=False))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("seed", range(8))
def test_places_of_maxima(seed: int) -> None:
    """The places that onnxruntime counts in the whole tensor."""
    rng = np.random.default_rng(seed)
    x, ours, theirs = pool_geometry(rng)
    x = np.round(2 * x)  # with ties
    op = ops.MaxPoolIndex(**ours, **named([x]))
    found = op.in_whole(run(op, [x], IntType(8, signed=False)), x.shape)
    pooled = onnx_run("MaxPool", [x], **theirs)
    np.testing.assert_array_equal(x.reshape(-1)[found], pooled)


def test_threshold_is_strict() -> None:
    x = np.array([[-1.0, 0.5, 0.50001, np.nan, np.inf]], np.float32)
    result = run(ops.Threshold(limit=0.5, **named([x])), [x], IntType(1, signed=False))
    np.testing.assert_array_equal(result, [[0, 0, 1, 0, 1]])


def test_transposed_convolution_with_negative_pads_extends_by_the_bias() -> None:
    rng = np.random.default_rng(2)
    x, w, bias = normal(rng, 1, 2, 3), normal(rng, 2, 3, 2), normal(rng, 3)
    op = ops.ConvTranspose(
        strides=(2,),
        pads_begin=(-1,),
        pads_end=(-2,),
        dilations=(1,),
        output_padding=(0,),
        **named([x, w, bias]),
    )
    expected = np.tile(bias[None, :, None], (1, 1, 9))
    expected[:, :, 1:7] = onnx_run("ConvTranspose", [x, w, bias], strides=[2])
    np.testing.assert_allclose(run(op, [x, w, bias]), expected, atol=1e-6)


def test_wide_convolution_is_tiled() -> None:
    rng = np.random.default_rng(3)
    x, w, bias = normal(rng, 1, 12, 61, 130), normal(rng, 8, 12, 3, 3), normal(rng, 8)
    op = ops.Conv(
        strides=(1, 1),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        dilations=(1, 1),
        activation=ops.RELU,
        **named([x, w, bias]),
    )
    expected = np.maximum(onnx_run("Conv", [x, w, bias], pads=[1, 1, 1, 1]), 0)
    np.testing.assert_allclose(run(op, [x, w, bias]), expected, atol=1e-4)


def test_activation_with_all_parts() -> None:
    rng = np.random.default_rng(4)
    x = 3 * normal(rng, 1, 4, 5, 6)
    activation = Activation(
        slope=(0.1, -0.5, 2.0, 0.0),
        gain=(1.0, -2.0, 0.5, 3.0),
        shift=(0.5,),
        low=-1.0,
        high=4.0,
    )
    result = run(ops.Rescale(activation=activation, **named([x])), [x])
    np.testing.assert_array_equal(result, activation.apply(x, 1))


@pytest.mark.parametrize("element", [UINT8, IntType(4), IntType(2, narrow=True), IntType(16)])
def test_movement_of_codes(element: IntType) -> None:
    """Integers move like floats: compare with the float kernel on the same values."""
    rng = np.random.default_rng(5)
    names = ("nearest_resize", "concat", "slice_", "transpose", "reshape", "depth_to_space")
    for name in (*names, "max_pool", "pad"):
        case = MAKERS[name](rng)
        op = case.op
        codes = [
            rng.integers(element.low, element.high + 1, x.shape).astype(element.storage)
            for x in case.inputs
        ]
        expected = run(op, [x.astype(np.float32) for x in codes])
        if isinstance(op, Pad):
            op = Pad(
                begins=op.begins, ends=op.ends, mode=op.mode, code=element.high, **named(codes)
            )
            float_op = Pad(
                begins=op.begins,
                ends=op.ends,
                mode=op.mode,
                value=float(element.high),
                **named(codes),
            )
            expected = run(float_op, [x.astype(np.float32) for x in codes])
        np.testing.assert_array_equal(run(op, codes, element), expected, err_msg=name)
