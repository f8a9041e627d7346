"""Nodes whose inputs are all known are evaluated at import, once their result's size is bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from qcompile.errors import ModelError
from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.types import Array

MAX_FOLDED_ELEMENTS = 1 << 24
"""Most elements of one result."""

MAX_TOTAL_ELEMENTS = 1 << 26
"""Most elements of all results together, so that many nodes do no harm either."""

Bound = Callable[[Node, Sequence[Array]], int]
"""An upper bound of the elements of a node's largest result."""


def _elementwise(node: Node, inputs: Sequence[Array]) -> int:
    rank = max(array.ndim for array in inputs)
    shapes = [(1,) * (rank - array.ndim) + array.shape for array in inputs]
    return math.prod(max(sizes) for sizes in zip(*shapes, strict=True))


def _same(node: Node, inputs: Sequence[Array]) -> int:
    return inputs[0].size


def _filled(node: Node, inputs: Sequence[Array]) -> int:
    return math.prod(max(0, int(size)) for size in inputs[0].reshape(-1).tolist())


def _expanded(node: Node, inputs: Sequence[Array]) -> int:
    target = [max(1, int(size)) for size in inputs[1].reshape(-1).tolist()]
    shape = list(inputs[0].shape)
    rank = max(len(shape), len(target))
    shape = [1] * (rank - len(shape)) + shape
    target = [1] * (rank - len(target)) + target
    return math.prod(max(a, b) for a, b in zip(shape, target, strict=True))


def _range(node: Node, inputs: Sequence[Array]) -> int:
    start, limit, delta = (float(array.reshape(-1)[0]) for array in inputs)
    if delta == 0 or not all(map(math.isfinite, (start, limit, delta))):
        node.malformed("Range without finite bounds and a step")
    return max(0, math.ceil((limit - start) / delta))


def _gathered(node: Node, inputs: Sequence[Array]) -> int:
    data, indices = inputs
    axis = node.integer("axis", 0)
    if not -data.ndim <= axis < data.ndim:
        node.malformed(f"axis {axis} does not exist in shape {list(data.shape)}")
    row: int = data.size // max(1, data.shape[axis])
    return int(indices.size) * row


def _tiled(node: Node, inputs: Sequence[Array]) -> int:
    return inputs[0].size * math.prod(max(0, int(n)) for n in inputs[1].reshape(-1).tolist())


def _joined(node: Node, inputs: Sequence[Array]) -> int:
    return sum(array.size for array in inputs)


def _product(node: Node, inputs: Sequence[Array]) -> int:
    return math.prod(max(1, array.size) for array in inputs[:2])


def _padded(node: Node, inputs: Sequence[Array]) -> int:
    pads = (
        list(node.integers("pads", ()))
        if len(inputs) < 2
        else [int(pad) for pad in inputs[1].reshape(-1).tolist()]
    )
    widest = sum(max(0, pad) for pad in pads)
    return math.prod(size + widest for size in inputs[0].shape)


BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(
        (
            "Add", "And", "BitShift", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
            "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum",
            "Where", "Xor",
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        (
            "Abs", "ArgMax", "Cast", "CastLike", "Ceil", "CumSum", "Erf", "Exp", "Flatten", "Floor",
            "GatherElements", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Neg", "Not",
            "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
            "ReduceSum", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Shape",
            "Sigmoid", "Sign", "Size", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Tanh",
            "Transpose", "Trilu", "Unsqueeze",
        ),
        _same,
    ),
    "Concat": _joined,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Gather": _gathered,
    "MatMul": _product,
    "NonZero": _product,
    "Pad": _padded,
    "Range": _range,
    "Tile": _tiled,
}  # fmt: skip
"""Every operator that is evaluated at import."""


def is_foldable(node: Node, builder: Builder) -> bool:
    """Whether all inputs of `node` are known and its operator is one we evaluate."""
    return (
        node.operator in BOUNDS
        and bool(node.inputs)
        and all(not value or builder.data(value) is not None for value in node.inputs)
    )


def fold(node: Node, builder: Builder) -> None:
    """Evaluates a foldable node.

    Raises:
        ModelError: its inputs do not fit together.
        UnsupportedError: the result is too large.
    """
    names = [value for value in node.inputs if value]
    feeds: dict[str, Array] = {}
    for value in names:
        data = builder.data(value)
        assert data is not None
        feeds[value] = data
    arrays = [feeds[value] for value in names]
    try:
        bound = BOUNDS[node.operator](node, arrays)
    except (ValueError, IndexError, TypeError, OverflowError):
        node.malformed("its constant inputs do not fit together")
    if bound > MAX_FOLDED_ELEMENTS:
        node.refuse(
            f"a constant result of up to {bound} elements, the limit is {MAX_FOLDED_ELEMENTS}",
            "compute it from smaller constants",
        )
    results = _evaluate(node, feeds)
    builder.folded_elements += sum(data.size for data in results)
    if builder.folded_elements > MAX_TOTAL_ELEMENTS:
        raise ModelError(
            f"{node.label()}: the constants that nodes compute exceed {MAX_TOTAL_ELEMENTS} "
            f"elements; fold them before, for example with onnxsim"
        )
    for value, data in zip(node.outputs, results, strict=False):
        if value:
            builder.know(value, data)


MOVES = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators whose result has the elements of the first input, which stay on their grid."""


def fold_scales(node: Node, builder: Builder) -> None:
    """The scales of a folded node's result, where its operator only moves numbers."""
    scales = builder.scales.get(node.inputs[0])
    if scales is None or node.operator not in MOVES:
        return
    if node.operator in ("Cast", "Identity"):
        builder.scales[node.output] = scales
        return
    feeds = {value: builder.data(value) for value in node.inputs[1:] if value}
    feeds[node.inputs[0]] = np.ascontiguousarray(scales)
    known = {value: data for value, data in feeds.items() if data is not None}
    (builder.scales[node.output],) = _evaluate(node, known)


def _evaluate(node: Node, feeds: Mapping[str, Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator  # a slow import that many models do not need

    graph = helper.make_graph(
        [node.proto],
        "constant",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(data.dtype), data.shape
            )
            for name, data in feeds.items()
        ],
        [onnx.ValueInfoProto(name=value) for value in node.outputs if value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(feeds))
    except Exception as error:  # the evaluator raises whatever its numpy code meets
        node.malformed(f"its constant inputs do not fit together ({type(error).__name__}: {error})")
    return [np.asarray(result) for result in results]
