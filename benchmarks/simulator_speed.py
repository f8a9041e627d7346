"""Time of the integer simulator against onnxruntime in float32 on one U-Net, two threads both.

    python benchmarks/simulator_speed.py [--size 256] [--base 16] [--depth 4] [--repeats 7]

The network is synthetic: two 3x3 convolutions a level, 2x2 max pooling, 2x2 transposed
convolutions, concatenation, a 1x1 head; 4-bit weights and 6-bit activations (8 at the ends). The
runs of both programs are interleaved, and the medians compared.
"""

# ruff: noqa: E402 - the number of threads must be known before numpy is imported

from __future__ import annotations

import os

THREADS = 2
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, str(THREADS))

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import Requantize, multiplier_and_shift
from qcompile.ops import Concat, Conv, ConvTranspose, Dequantize, MaxPool, SumOp
from qcompile.sim.executor import Executor
from qcompile.types import (
    FLOAT32,
    UINT8,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    TensorType,
)

ACTIVATION_SCALE = 1 / 16


@dataclass
class Builder:
    """The same network twice: as an integer graph and as ONNX."""

    seed: int = 0
    ops: list[Op] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initialisers: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def weighted(
        self, x: str, channels: int, kernel: int, transposed: bool = False, head: bool = False
    ) -> str:
        """A convolution with ReLU, or the head without."""
        name = f"conv{len(self.ops)}"
        kind = self.types[x]
        shape = (channels, kind.shape[1]) if not transposed else (kind.shape[1], channels)
        axis = int(transposed)
        element = IntType(8 if head or kind.element == UINT8 else 4, narrow=True)
        w = self.rng.integers(
            element.low, element.high, (*shape, kernel, kernel), endpoint=True
        ).astype(np.int8)
        w_name = f"{name}.weight"
        self.types[w_name] = TensorType(
            w.shape,
            element,
            Quantization((0.01,) * channels, axis),
            Codebook(CodebookKind.UNIFORM, element.high - element.low + 1),
        )
        self.constants[w_name] = w
        output = IntType(8) if head else IntType(6, signed=False)
        pad = kernel // 2
        op: SumOp
        if transposed:
            op = ConvTranspose(
                name=name,
                inputs=(x, w_name),
                outputs=(name,),
                strides=(2, 2),
                pads_begin=(0, 0),
                pads_end=(0, 0),
                dilations=(1, 1),
                output_padding=(0, 0),
            )
        else:
            op = Conv(
                name=name,
                inputs=(x, w_name),
                outputs=(name,),
                strides=(1, 1),
                pads_begin=(pad, pad),
                pads_end=(pad, pad),
                dilations=(1, 1),
            )
        op = self._finished(op, output)
        self.ops.append(op)
        out_shape = op.infer_shape([kind.shape, w.shape])
        self.types[name] = TensorType(out_shape, output, Quantization.per_tensor(ACTIVATION_SCALE))
        self._onnx(op, w)
        return name

    def _finished(self, op: SumOp, output: IntType) -> SumOp:
        x, w = op.inputs
        weights = self.constants[w]
        reach = op.reach([self.types[x], self.types[w]], [None, weights])
        terms = weights.size // self.types[x].shape[1 - int(isinstance(op, ConvTranspose))]
        deviation = float(weights.std()) * self.types[x].integer.high / 2 * terms**0.5
        rows = []
        for spread in self.rng.uniform(0.7, 1.4, len(self.types[w].quantization.scale)):  # type: ignore[union-attr]
            ratio = Fraction(float(output.high / (2 * deviation) * spread))
            m, s = multiplier_and_shift(ratio, min(reach.magnitude, int(output.high / ratio) + 1))
            b = (1 << (s - 1)) + int(self.rng.normal() * (1 << s))
            low = min(max((((output.low + 1) << s) - 1 - b) // m, reach.low), reach.high)
            high = max(min(-((b - (output.high << s)) // m), reach.high), low)
            rows.append((m, b, s, low, high))
        multipliers, biases, shifts, lows, highs = zip(*rows, strict=True)
        epilogue = Requantize(multipliers, biases, shifts, output.low, output.high, lows, highs)
        return replace(op, epilogue=epilogue, accumulator=IntType.holding(reach))

    def _onnx(self, op: SumOp, w: Array) -> None:
        channels = len(self.types[op.inputs[1]].quantization.scale)  # type: ignore[union-attr]
        for name, data in (
            (op.inputs[1], w.astype(np.float32) * 0.01),
            (f"{op.name}.bias", np.zeros(channels, np.float32)),
        ):
            self.initialisers.append(numpy_helper.from_array(data, name))
        transposed = isinstance(op, ConvTranspose)
        attributes = {"strides": [2, 2]} if transposed else {"pads": [w.shape[2] // 2] * 4}
        inner = f"{op.output}.sum"
        self.nodes.append(
            helper.make_node(op.kind, [*op.inputs, f"{op.name}.bias"], [inner], **attributes)
        )
        self.nodes.append(helper.make_node("Relu", [inner], [op.output]))

    def pool(self, x: str) -> str:
        name = f"pool{len(self.ops)}"
        op = MaxPool(
            name=name,
            inputs=(x,),
            outputs=(name,),
            kernel=(2, 2),
            strides=(2, 2),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
        )
        self._plain(op, [x])
        self.nodes.append(
            helper.make_node("MaxPool", [x], [name], kernel_shape=[2, 2], strides=[2, 2])
        )
        return name

    def concat(self, first: str, second: str) -> str:
        name = f"concat{len(self.ops)}"
        self._plain(
            Concat(name=name, inputs=(first, second), outputs=(name,), axis=1), [first, second]
        )
        self.nodes.append(helper.make_node("Concat", [first, second], [name], axis=1))
        return name

    def _plain(self, op: Op, inputs: Sequence[str]) -> None:
        first = self.types[inputs[0]]
        shape = op.infer_shape([self.types[value].shape for value in inputs])
        self.ops.append(op)
        self.types[op.output] = TensorType(shape, first.element, first.quantization)


def unet(size: int, base: int, depth: int) -> tuple[Graph, onnx.ModelProto]:
    """The network for inputs [1, 1, size, size]: uint8 codes and float32."""
    net = Builder()
    shape = (1, 1, size, size)
    net.types["x"] = TensorType(shape, UINT8, Quantization.per_tensor(1 / 255))
    x = "x"
    skips = []
    for level in range(depth):
        x = net.weighted(net.weighted(x, base << level, 3), base << level, 3)
        skips.append(x)
        x = net.pool(x)
    x = net.weighted(net.weighted(x, base << depth, 3), base << depth, 3)
    for level in reversed(range(depth)):
        x = net.concat(net.weighted(x, base << level, 2, transposed=True), skips[level])
        x = net.weighted(net.weighted(x, base << level, 3), base << level, 3)
    x = net.weighted(x, 2, 1, head=True)
    net.ops.append(Dequantize(name="y", inputs=(x,), outputs=("y",), scale=ACTIVATION_SCALE))
    net.types["y"] = TensorType(net.types[x].shape, FLOAT32)
    graph = Graph("unet", Stage.INTEGER, ("x",), ("y",), tuple(net.ops), net.types, net.constants)
    model = helper.make_model(
        helper.make_graph(
            net.nodes,
            "unet",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, net.types[x].shape)],
            net.initialisers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return graph, model


def seconds(repeats: int, graph: Graph, model: onnx.ModelProto) -> tuple[float, float]:
    """Median times of the simulator and of onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    executor = Executor(graph)
    shape = graph.types["x"].shape
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    floats = pixels.astype(np.float32) / 255
    simulator, reference = [], []
    for turn in range(repeats + 2):
        start = time.perf_counter()
        executor.run({"x": pixels})
        middle = time.perf_counter()
        session.run(None, {"x": floats})
        end = time.perf_counter()
        if turn >= 2:
            simulator.append(middle - start)
            reference.append(end - middle)
    return statistics.median(simulator), statistics.median(reference)


def main() -> None:
    """Prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("size", 256), ("base", 16), ("depth", 4), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    graph, model = unet(options.size, options.base, options.depth)
    simulator, reference = seconds(options.repeats, graph, model)
    print(
        f"simulator {1e3 * simulator:.1f} ms, onnxruntime float32 {1e3 * reference:.1f} ms, "
        f"{THREADS} threads: ratio {simulator / reference:.2f}"
    )


if __name__ == "__main__":
    main()
