"""Rules that every graph obeys, and rules for each stage. Run before and after each pass."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from qcompile.errors import GraphError, ShapeError
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    INDICES,
    MOVEMENT,
    Add,
    Affine,
    ArgMax,
    BatchMatMul,
    Concat,
    Conv,
    ConvTranspose,
    Dequantize,
    Div,
    GroupNorm,
    LayerNorm,
    LocalAttention2d,
    Lookup,
    MaskedFill,
    MatMul,
    MaxPoolIndex,
    MaxUnpool,
    Mul,
    Quantize,
    Softmax,
    SumOp,
)
from qcompile.ops.code_limits import moved_inputs
from qcompile.types import FLOAT32, Array, FloatType, IntType, TensorType
from qcompile.verify_integer import verify_integer_op
from qcompile.verify_limits import verify_limits

_OPERANDS: Mapping[type[Op], tuple[int, int]] = {
    Conv: (2, 3),
    ConvTranspose: (2, 3),
    MatMul: (2, 3),
    BatchMatMul: (2, 2),
    Affine: (2, 3),
    GroupNorm: (1, 3),
    LayerNorm: (1, 3),
    MaskedFill: (2, 2),
    Softmax: (1, 2),
    LocalAttention2d: (4, 6),
    Add: (2, 2),
    Mul: (2, 2),
    MaxUnpool: (2, 2),
    Div: (2, 2),
    Lookup: (2, 2),
}
"""Least and largest number of inputs; every other operator but Concat has one."""

_COMPUTED: Mapping[type[Op], int] = {
    **dict.fromkeys((Conv, ConvTranspose, MatMul, Affine, GroupNorm, Lookup), 1),
    **dict.fromkeys((LayerNorm, MaskedFill, Softmax), 1),
    LocalAttention2d: 3,
}
"""Operators with parameters: how many inputs come before those that must be constants."""


def verify(graph: Graph) -> None:
    """Checks the structure of `graph` and the rules of its stage.

    Raises:
        GraphError: the first rule broken, with the operator that breaks it.
    """
    _verify_values(graph)
    _verify_order(graph)
    _verify_constants(graph)
    for op in graph.ops:
        _verify_operands(graph, op)
        _verify_shape(graph, op)
        _verify_bias(graph, op)
    verify_limits(graph)
    match graph.stage:
        case Stage.FLOAT:
            _verify_float(graph)
        case Stage.QUANTIZED:
            _verify_not_lowered(graph)
        case Stage.INTEGER:
            _verify_integer(graph)


def _verify_values(graph: Graph) -> None:
    """Every value is named once, has a type, and comes from one place."""
    names: set[str] = set()
    for op in graph.ops:
        if op.name in names:
            raise GraphError(f"{op.label()}: another operator has this name; names must be unique")
        names.add(op.name)
        if len(op.outputs) != 1:
            raise GraphError(f"{op.label()}: has {len(op.outputs)} outputs; every operator has one")
    written: dict[str, str] = {}
    for name in graph.inputs:
        if name in written:
            raise GraphError(f"graph '{graph.name}': input '{name}' is listed twice")
        written[name] = "the graph's input"
    for name in graph.constants:
        if name in written:
            raise GraphError(f"graph '{graph.name}': input '{name}' is also a constant")
        written[name] = "a constant"
    for op in graph.ops:
        for name in op.outputs:
            if name in written:
                raise GraphError(
                    f"{op.label()}: value '{name}' is already {written[name]}; "
                    f"each value needs one producer"
                )
            written[name] = f"written by {op.label()}"
    for name in written:
        if name not in graph.types:
            raise GraphError(f"graph '{graph.name}': value '{name}' has no type")
    if not graph.outputs:
        raise GraphError(f"graph '{graph.name}': has no output")
    for name in graph.outputs:
        if name not in written:
            raise GraphError(f"graph '{graph.name}': nothing writes output '{name}'")


def _verify_order(graph: Graph) -> None:
    known = {*graph.inputs, *graph.constants}
    for op in graph.ops:
        for name in op.inputs:
            if name not in known:
                late = graph.producers.get(name)
                why = f"is written later, by {late.label()}" if late else "is written by nothing"
                raise GraphError(f"{op.label()}: reads value '{name}', which {why}")
        known.update(op.outputs)


def _verify_constants(graph: Graph) -> None:
    for name, data in graph.constants.items():
        reason = _constant_fault(data, graph.types[name])
        if reason is not None:
            readers = graph.consumers.get(name, ())
            where = readers[0].label() if readers else f"graph '{graph.name}'"
            raise GraphError(f"{where}: constant '{name}' {reason}")


def _constant_fault(data: Array, kind: TensorType) -> str | None:
    if data.shape != kind.shape:
        return f"has data of shape {list(data.shape)} but type {kind}"
    if isinstance(kind.element, FloatType):
        if data.dtype != kind.element.storage:
            return f"has {data.dtype} data but type {kind}"
        return None if np.isfinite(data).all() else "holds values that are not finite"
    if data.dtype.kind not in "iuO":
        return f"has {data.dtype} data but type {kind}"
    if data.size:
        low, high = int(data.min()), int(data.max())
        if low < kind.element.low or high > kind.element.high:
            return f"holds codes {low}..{high}, outside of its type {kind.element}"
    return None


def _verify_operands(graph: Graph, op: Op) -> None:
    count = len(op.inputs)
    if isinstance(op, Concat):
        if count < 1:
            raise GraphError(f"{op.label()}: has no inputs")
        return
    least, most = _OPERANDS.get(type(op), (1, 1))
    if not least <= count <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise GraphError(f"{op.label()}: has {count} inputs; {wanted} expected")
    for name in op.inputs[_COMPUTED.get(type(op), count) :]:
        if not graph.is_constant(name):
            raise GraphError(f"{op.label()}: parameter '{name}' must be a constant")


def _verify_shape(graph: Graph, op: Op) -> None:
    kind = graph.types[op.output]
    try:
        shape = op.infer_shape([graph.types[name].shape for name in op.inputs])
    except ShapeError as error:
        raise GraphError(str(error)) from None
    if shape != kind.shape:
        raise GraphError(
            f"{op.label()}: its output '{op.output}' has type {kind} but the inputs give shape "
            f"{list(shape)}"
        )
    scales = kind.quantization.scale if kind.quantization is not None else (1.0,)
    if len(scales) != 1:
        raise GraphError(
            f"{op.label()}: output '{op.output}' must have one scale, not {len(scales)}"
        )
    if isinstance(op, ArgMax | MaxPoolIndex):
        if isinstance(op, MaxPoolIndex):
            size = math.prod(op.kernel)
        else:
            size = graph.types[op.inputs[0]].shape[op.axis]
        if not isinstance(kind.element, IntType) or kind.element.high < size - 1:
            raise GraphError(
                f"{op.label()}: element type {kind.element} cannot hold indices up to {size - 1}"
            )


def _verify_bias(graph: Graph, op: Op) -> None:
    if isinstance(op, (Conv, ConvTranspose, MatMul)) and len(op.inputs) == 3:
        bias = graph.types[op.inputs[2]].shape
        kind = graph.types[op.output]
        channels = kind.shape[op.channel_axis(kind.rank)]
        if bias != (channels,):
            raise GraphError(
                f"{op.label()}: bias of shape {list(bias)} does not fit {channels} output channels"
            )
    if isinstance(op, SumOp):
        kind = graph.types[op.output]
        wide = {len(v) for v in (op.activation.slope, op.activation.gain, op.activation.shift)}
        if wide - {1, kind.shape[op.channel_axis(kind.rank)] if kind.rank else 1}:
            raise GraphError(
                f"{op.label()}: activation vectors of lengths {sorted(wide)} do not fit {kind}"
            )
        if op.activation.low > op.activation.high:
            raise GraphError(f"{op.label()}: its activation clips to an empty interval")


def _verify_not_lowered(graph: Graph) -> None:
    for op in graph.ops:
        if isinstance(op, (Lookup, Quantize, Dequantize)):
            raise GraphError(f"{op.label()}: exists only in the integer stage")
        if isinstance(op, SumOp) and (op.epilogue is not None or op.accumulator is not None):
            raise GraphError(
                f"{op.label()}: has an epilogue or accumulator in the {graph.stage.value} stage"
            )


def _verify_float(graph: Graph) -> None:
    _verify_not_lowered(graph)
    integers = set()
    for op in graph.ops:
        element = graph.types[op.output].element
        if isinstance(op, MOVEMENT) and any(
            graph.types[name].element != element for name in moved_inputs(op)
        ):
            raise GraphError(f"{op.label()}: moves values, but changes their type to {element}")
        if isinstance(element, IntType):
            integers.add(op.output)
            if not (isinstance(op, INDICES) or integers.intersection(op.inputs)):
                raise GraphError(
                    f"{op.label()}: writes {element} in the float stage; only class maps do"
                )


def _verify_integer(graph: Graph) -> None:
    for name in graph.inputs:
        kind = graph.types[name]
        if kind.element != FLOAT32 and not isinstance(kind.element, IntType):
            raise GraphError(
                f"graph '{graph.name}': input '{name}' is {kind}; "
                f"the integer stage takes integers or float32"
            )
    for op in graph.ops:
        verify_integer_op(graph, op)
