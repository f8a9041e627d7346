from __future__ import annotations

import dataclasses

import numpy as np

from qcompile.graph import Graph, Stage
from qcompile.numerics import Requantize
from qcompile.ops import IDENTITY, RELU, Conv, Sigmoid
from qcompile.printer import print_graph
from qcompile.types import (
    UINT8,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    TensorType,
)

CONV = Conv(
    name="conv",
    inputs=("x", "w"),
    outputs=("t",),
    strides=(2, 2),
    pads_begin=(1, 1),
    pads_end=(1, 1),
    dilations=(1, 1),
    activation=RELU,
)


def graph_of(name: str = "s", value: str = "y") -> Graph:
    weights = np.linspace(-1, 1, 108, dtype=np.float32).reshape(4, 3, 3, 3)
    types = {
        "x": TensorType((1, 3, 8, 8)),
        "w": TensorType(weights.shape),
        "t": TensorType((1, 4, 4, 4)),
        value: TensorType((1, 4, 4, 4)),
    }
    ops = (CONV, Sigmoid(name=name, inputs=("t",), outputs=(value,)))
    return Graph("net", Stage.FLOAT, ("x",), (value,), ops, types, {"w": weights})


def test_text() -> None:
    assert print_graph(graph_of()) == (
        "graph 'net' stage=float\n"
        "input %x: f32[1,3,8,8]\n"
        "const @w: f32[4,3,3,3] -1..1\n"
        "%t: f32[1,4,4,4] = Conv 'conv'(%x, @w) activation=relu strides=[2,2] "
        "pads_begin=[1,1] pads_end=[1,1] dilations=[1,1]\n"
        "%y: f32[1,4,4,4] = Sigmoid 's'(%t)\n"
        "return %y\n"
    )


def test_integer_types_and_epilogues() -> None:
    graph = graph_of()
    codes = np.ones((4, 3, 3, 3), dtype=np.int8)
    types = dict(graph.types)
    book = Codebook(CodebookKind.UNIFORM, 7)
    types["x"] = TensorType((1, 3, 8, 8), UINT8, Quantization.per_tensor(1 / 255))
    types["w"] = TensorType(
        codes.shape, IntType(3, narrow=True), Quantization((0.1, 0.2, 0.3, 0.4), 0), book
    )
    types["t"] = TensorType((1, 4, 4, 4), IntType(6, signed=False), Quantization.per_tensor(0.25))
    types["y"] = dataclasses.replace(types["t"], limits=CodeLimits((3, 1, 2, 3), (63, 60, 61, 62)))
    epilogue = Requantize((3,), tuple(range(9)), (4,), (0,), (63,), (-5,), (5,))
    conv = dataclasses.replace(
        CONV, activation=IDENTITY, epilogue=epilogue, accumulator=IntType(17)
    )
    text = print_graph(
        dataclasses.replace(graph, ops=(conv, graph.ops[1]), types=types, constants={"w": codes})
    )
    lines = text.splitlines()
    assert lines[1] == "input %x: u8[1,3,8,8] s=0.00392157"
    assert lines[2] == "const @w: i3n[4,3,3,3] s=0.1..0.4 axis=0 uniform:7 1..1"
    assert lines[3].startswith("%t: u6[1,4,4,4] s=0.25 UQ4.2 = Conv 'conv'(%x, @w) epilogue=")
    assert lines[4].startswith("%y: u6[1,4,4,4] s=0.25 UQ4.2 in 1..63 by channel = Sigmoid")
    assert "biases=[0,1,2,3,4,5,6,7,... 9 in all]" in lines[3]
    assert "accumulator=i17" in lines[3]


def test_hostile_names_stay_on_their_line() -> None:
    name = 'a"; system("x"); //\n%y: f32[1] = Forged'
    plain, hostile = print_graph(graph_of()), print_graph(graph_of(name, "\u2028\x1b[31m\r"))
    assert len(hostile.splitlines()) == len(plain.splitlines())
    assert hostile.isascii()
    assert "\x1b" not in hostile


def test_equal_graphs_print_equally() -> None:
    graph = graph_of()
    shuffled = dataclasses.replace(graph, types=dict(reversed(list(graph.types.items()))))
    assert print_graph(graph) == print_graph(shuffled)
