"""Every rule of the verifier is broken once, and named in one line with the operator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import NegativeBranch, Requantize, Thresholds
from qcompile.ops import (
    RELU,
    Activation,
    ArgMax,
    Conv,
    Dequantize,
    Lookup,
    MaxPool,
    Pad,
    Quantize,
    Rescale,
    Reshape,
    Sigmoid,
    Threshold,
)
from qcompile.types import (
    UINT8,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    TensorType,
)
from qcompile.verifier import verify
from tests.op_cases import CASES, cases_of

SHAPE = (1, 3, 6, 6)
WINDOW: dict[str, Any] = {
    "strides": (1, 1),
    "pads_begin": (1, 1),
    "pads_end": (1, 1),
    "dilations": (1, 1),
}
BOOK = Codebook(CodebookKind.UNIFORM, 15)
SCALE = Quantization.per_tensor(0.5)


def conv(x: str, **fields: Any) -> Conv:
    return Conv(name="conv", inputs=(x, "w"), outputs=("t",), **(WINDOW | fields))


def float_graph() -> Graph:
    weights = np.ones((4, 3, 3, 3), dtype=np.float32)
    types = {
        "x": TensorType(SHAPE),
        "w": TensorType(weights.shape),
        "t": TensorType((1, 4, 6, 6)),
        "y": TensorType((1, 4, 6, 6)),
    }
    ops = (conv("x", activation=RELU), Sigmoid(name="sigmoid", inputs=("t",), outputs=("y",)))
    return Graph("net", Stage.FLOAT, ("x",), ("y",), ops, types, {"w": weights})


EPILOGUE = Requantize((3,), (8,), (4,), (0,), (63,), (-1000,), (1000,))


def integer_graph() -> Graph:
    """x (float) -> Quantize -> Conv -> MaxPool -> Dequantize."""
    weights = np.full((4, 3, 3, 3), 7, dtype=np.int8)
    u6 = TensorType((1, 4, 6, 6), IntType(6, signed=False), SCALE)
    types = {
        "x": TensorType(SHAPE),
        "q": TensorType(SHAPE, IntType(4), SCALE),
        "w": TensorType(weights.shape, IntType(4, narrow=True), Quantization((0.1,) * 4, 0), BOOK),
        "t": u6,
        "p": dataclasses.replace(u6, shape=(1, 4, 3, 3)),
        "y": TensorType((1, 4, 3, 3)),
    }
    ops: tuple[Op, ...] = (
        Quantize(
            name="quantize",
            inputs=("x",),
            outputs=("q",),
            inverse=(2.0,),
            offset=(0.5,),
            low=-8,
            high=7,
        ),
        conv("q", epilogue=EPILOGUE, accumulator=IntType(12)),
        MaxPool(
            name="pool",
            inputs=("t",),
            outputs=("p",),
            kernel=(2, 2),
            **(WINDOW | {"strides": (2, 2), "pads_begin": (0, 0), "pads_end": (0, 0)}),
        ),
        Dequantize(name="dequantize", inputs=("p",), outputs=("y",), scale=0.5),
    )
    return Graph("net", Stage.INTEGER, ("x",), ("y",), ops, types, {"w": weights})


def with_type(graph: Graph, name: str, kind: TensorType) -> Graph:
    return dataclasses.replace(graph, types={**graph.types, name: kind})


def with_op(graph: Graph, index: int, **fields: Any) -> Graph:
    ops = list(graph.ops)
    ops[index] = dataclasses.replace(ops[index], **fields)
    return dataclasses.replace(graph, ops=tuple(ops))


def with_constant(graph: Graph, name: str, data: Any) -> Graph:
    return dataclasses.replace(graph, constants={**graph.constants, name: data})


def epilogue(**fields: Any) -> Graph:
    return with_op(integer_graph(), 1, epilogue=dataclasses.replace(EPILOGUE, **fields))


def limited(name: str, low: tuple[int, ...], high: tuple[int, ...], **fields: Any) -> Graph:
    graph = integer_graph()
    kind = dataclasses.replace(graph.types[name], limits=CodeLimits(low, high), **fields)
    return with_type(graph, name, kind)


def without(graph: Graph, name: str) -> Graph:
    types = {key: kind for key, kind in graph.types.items() if key != name}
    return dataclasses.replace(graph, types=types)


def test_sound_graphs_pass() -> None:
    verify(float_graph())
    verify(integer_graph())
    kept = limited("t", (0, 1, 0, 0), (63, 5, 63, 63))
    epilogue = dataclasses.replace(EPILOGUE, lows=(0, 2, 0, 0), highs=(63, 5, 63, 63))
    verify(with_op(kept, 1, epilogue=epilogue))
    # All sums reach the first threshold, so 0 does not occur.
    verify(with_op(limited("t", (1,), (2,)), 1, epilogue=Thresholds(((-9000,), (5,)), 0)))


@pytest.mark.parametrize("stem", CASES)
def test_operator_cases_pass(stem: str) -> None:
    for case in cases_of(stem):
        verify(case.graph)


def moved_codes() -> Graph:
    """A class map that a Reshape turns into floats."""
    shape = (1, 1, 6, 6)
    types = {
        "x": TensorType(SHAPE),
        "c": TensorType(shape, IntType(2, signed=False)),
        "y": TensorType((1, 36)),
    }
    ops: tuple[Op, ...] = (
        ArgMax(name="a", inputs=("x",), outputs=("c",), axis=1),
        Reshape(name="r", inputs=("c",), outputs=("y",), shape=(1, 36)),
    )
    return Graph("net", Stage.FLOAT, ("x",), ("y",), ops, types, {})


FLOAT = float_graph()
INTEGER = integer_graph()
NAN = np.full((4, 3, 3, 3), np.nan, dtype=np.float32)

BROKEN = {
    "conv.*names must be unique": with_op(FLOAT, 1, name="conv"),
    "outputs; every operator has one": with_op(FLOAT, 1, outputs=("y", "z")),
    "'x' is listed twice": dataclasses.replace(FLOAT, inputs=("x", "x")),
    "is also a constant": dataclasses.replace(FLOAT, inputs=("x", "w")),
    "already the graph's input": with_op(FLOAT, 0, outputs=("x",)),
    "has no type": without(FLOAT, "t"),
    "has no output": dataclasses.replace(FLOAT, outputs=()),
    "nothing writes output 'z'": dataclasses.replace(FLOAT, outputs=("z",)),
    "written later, by Conv 'conv'": dataclasses.replace(FLOAT, ops=FLOAT.ops[::-1]),
    "written by nothing": with_op(FLOAT, 1, inputs=("z",)),
    "conv.*has data of shape": with_constant(FLOAT, "w", NAN[:1]),
    "conv.*float64 data": with_constant(FLOAT, "w", np.ones((4, 3, 3, 3))),
    "conv.*not finite": with_constant(FLOAT, "w", NAN),
    "conv.*holds codes 7..9": with_constant(
        INTEGER, "w", np.where(np.arange(108).reshape(4, 3, 3, 3) > 50, 9, 7).astype(np.int8)
    ),
    "conv.*1 inputs; 2 to 3 expected": with_op(FLOAT, 0, inputs=("x",)),
    "conv.*must be a constant": with_op(FLOAT, 0, inputs=("x", "x")),
    "conv.*weights of shape": with_op(FLOAT, 0, groups=3),
    "conv.*inputs give shape": with_op(FLOAT, 0, pads_end=(1, 2)),
    "activation vectors of lengths": with_op(FLOAT, 0, activation=Activation(slope=(0.1, 0.2))),
    "empty interval": with_op(FLOAT, 0, activation=Activation(low=1.0, high=0.0)),
    "conv.*epilogue or accumulator in the float": with_op(FLOAT, 0, epilogue=EPILOGUE),
    "conv.*accumulator in the quantized": dataclasses.replace(
        with_op(FLOAT, 0, accumulator=IntType(9)), stage=Stage.QUANTIZED
    ),
    "exists only in the integer stage": dataclasses.replace(INTEGER, stage=Stage.FLOAT),
    "only class maps": with_type(FLOAT, "t", TensorType((1, 4, 6, 6), UINT8)),
    "r.*changes their type to f32": moved_codes(),
    "conv.*no epilogue": with_op(INTEGER, 1, epilogue=None),
    "conv.*no accumulator": with_op(INTEGER, 1, accumulator=None),
    "conv.*is not lowered into": with_op(INTEGER, 1, activation=RELU),
    "conv.*sums reach -1512..1323": with_op(INTEGER, 1, accumulator=IntType(11)),
    "conv.*needs 64 bits": with_op(INTEGER, 1, accumulator=IntType(64)),
    "conv.*scale and a codebook": with_type(
        INTEGER, "w", dataclasses.replace(INTEGER.types["w"], codebook=None)
    ),
    "conv.*2 weight scales for 4": with_type(
        INTEGER,
        "w",
        dataclasses.replace(INTEGER.types["w"], quantization=Quantization((0.1, 0.2), 0)),
    ),
    "conv.*2 multipliers for 4": epilogue(multipliers=(1, 2)),
    "conv.*3 biases for 4": epilogue(biases=(1, 2, 3)),
    "conv.*3 negative pivots for 4": epilogue(negative=NegativeBranch((1, 2, 3), (1,), (1,))),
    "conv.*shifts must lie": epilogue(shifts=(0,)),
    "conv.*empty output range": epilogue(lows=(5,), highs=(4,)),
    "conv.*clamp is empty": epilogue(acc_low=(0, 0, 7, 0), acc_high=(5,)),
    "conv.*more than 64 bits": epilogue(multipliers=(1 << 60,)),
    "conv.*gives 0..64, outside of the output's type u6": epilogue(highs=(64,)),
    "conv.*empty output range 7..6": epilogue(lows=(1, 7, 0, 0), highs=(6, 6, 63, 63)),
    "conv.*2 lows for 4": epilogue(lows=(1, 7)),
    "conv.*writes codes 0..63 to channel 1, outside of the output's limits 1..63": limited(
        "t", (0, 1, 0, 0), (63,) * 4
    ),
    "conv.*writes codes 1..2 to channel 0, outside of the output's limits 1..1": with_op(
        limited("t", (1,), (1,)), 1, epilogue=Thresholds(((-9000,), (5,)), 0)
    ),
    "pool.*writes codes 0..63 to channel 0, outside of the output's limits 0..62": limited(
        "p", (0,), (62,)
    ),
    "quantize.*writes codes -8..7 to channel 2": limited("q", (-8, -8, -7), (7, 7, 7)),
    "'t' has limits of 3 channels": limited("t", (0, 0, 0), (63, 63, 63)),
    "limits 0..64 of value 't' exceed its type u6": limited("t", (0,), (64,)),
    "'w' exceeds the limits": limited("w", (0,), (6,)),
    "'y' is f32.*has limits": limited("y", (0,), (6,)),
    "input 'x' has limits": limited("x", (0,), (6,), element=IntType(6)),
    "conv.*thresholds must ascend": with_op(INTEGER, 1, epilogue=Thresholds(((3,), (2,)), 0)),
    "conv.*needs thresholds": with_op(INTEGER, 1, epilogue=Thresholds((), 0)),
    "pool.*different scales": with_type(
        INTEGER,
        "p",
        dataclasses.replace(INTEGER.types["p"], quantization=Quantization.per_tensor(0.25)),
    ),
    "pool.*copies u6 codes": with_type(
        INTEGER, "p", dataclasses.replace(INTEGER.types["p"], element=IntType(6))
    ),
    "dequantize.*scale 0.3": with_op(INTEGER, 3, scale=0.3),
    "dequantize.*integers into floats": with_type(INTEGER, "y", INTEGER.types["p"]),
    "quantize.*-9..7 do not fit i4": with_op(INTEGER, 0, low=-9),
    "quantize.*2 factors for 3": with_op(INTEGER, 0, inverse=(1.0, 2.0)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_rule(message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        verify(BROKEN[message])
    assert "\n" not in str(caught.value)


def one_op(op: Op, output: TensorType, **table: Any) -> Graph:
    types = {"x": TensorType(SHAPE, IntType(4), SCALE), op.output: output}
    constants = {}
    for name, data in table.items():
        types[name] = TensorType(data.shape, IntType(8))
        constants[name] = data
    return Graph("net", Stage.INTEGER, ("x",), op.outputs, (op,), types, constants)


I4 = TensorType(SHAPE, IntType(4), SCALE)
TABLE = np.arange(-8, 8, dtype=np.int8)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            one_op(
                Lookup(name="f", inputs=("x", "k"), outputs=("y",), lowest=-8), I4, k=TABLE[:15]
            ),
            "covers codes -8..6, the input has -8..7",
        ),
        (
            one_op(Lookup(name="f", inputs=("x", "k"), outputs=("y",)), I4, k=TABLE),
            "covers codes 0..15",
        ),
        (
            one_op(Lookup(name="f", inputs=("x", "k"), outputs=("y",), lowest=-8), I4, k=TABLE + 1),
            "entries -7..8 do not fit i4",
        ),
        (one_op(Sigmoid(name="f", inputs=("x",), outputs=("y",)), I4), "must be a Lookup"),
        (
            one_op(Sigmoid(name="f", inputs=("x",), outputs=("y",)), TensorType(SHAPE)),
            "a Dequantize is missing",
        ),
        (
            one_op(
                Pad(name="f", inputs=("x",), outputs=("y",), begins=(0,) * 4, ends=(0,) * 4), I4
            ),
            "pad code None",
        ),
        (
            one_op(
                Threshold(name="f", inputs=("x",), outputs=("y",), limit=0.0),
                TensorType(SHAPE, IntType(1, signed=False)),
            ),
            "not lowered to a code",
        ),
        (
            one_op(Rescale(name="f", inputs=("x",), outputs=("y",)), I4),
            "no epilogue",
        ),
    ],
)
def test_broken_single_operator(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=f"'f'.*{message}"):
        verify(graph)
