"""A small U-Net of the integer stage with random weights."""

from __future__ import annotations

import dataclasses

import numpy as np

from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import Requantize
from qcompile.ops import RELU, Concat, Conv, ConvTranspose, Dequantize, Lookup, MaxPool, SumOp
from qcompile.types import (
    UINT8,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    TensorType,
)


class Builder:
    """Adds layers to a graph; `weights` and `codes` are the types of every layer."""

    def __init__(self, weights: IntType, kind: CodebookKind, codes: IntType, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights, self.kind, self.codes = weights, kind, codes
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.ops: list[Op] = []

    def activation(self, name: str, *shape: int, element: IntType | None = None) -> str:
        element = element or self.codes
        self.types[name] = TensorType((1, *shape), element, Quantization.per_tensor(0.05))
        return name

    def constant(self, name: str, *shape: int, axis: int) -> str:
        if self.kind is CodebookKind.BINARY:
            data = self.rng.choice([-1, 1], shape)
        elif self.kind is CodebookKind.POW2:
            data = self.rng.choice([-64, -16, -4, -1, 0, 1, 4, 16, 64], shape)
        else:
            data = self.rng.integers(self.weights.low, self.weights.high + 1, shape)
        levels = self.weights.high - self.weights.low + 1
        book = Codebook(self.kind, levels)
        scale = Quantization((0.01,) * shape[axis], axis)
        self.types[name] = TensorType(shape, self.weights, scale, book)
        self.constants[name] = data.astype(self.weights.storage)
        return name

    def finish(self, op: SumOp, channels: int) -> str:
        """Adds `op` with an epilogue that spreads its sums over the codes."""
        reach = op.reach([self.types[v] for v in op.inputs], [None, self.constants[op.inputs[1]]])
        shift = max(1, (reach.magnitude * 300 // (self.codes.high * 2)).bit_length())
        limit = ((self.codes.high + 2) << shift) // 100 + 1
        epilogue = Requantize(
            multipliers=tuple(int(v) for v in self.rng.integers(200, 400, channels)),
            biases=tuple(int(v) << (shift - 1) for v in self.rng.integers(0, 8, channels)),
            shifts=(shift,),
            lows=(self.codes.low,),
            highs=(self.codes.high,),
            acc_low=(-limit,) * channels,
            acc_high=(limit,) * channels,
        )
        accumulator = IntType(32)
        self.ops.append(dataclasses.replace(op, epilogue=epilogue, accumulator=accumulator))
        return op.output

    def conv(self, x: str, channels: int, size: int = 3) -> str:
        name = f"enc/conv{len(self.ops)}"
        _, inputs, height, width = self.types[x].shape
        weights = self.constant(f"{name}.w", channels, inputs, size, size, axis=0)
        out = self.activation(f"{name}.y", channels, height, width)
        pads = (size // 2, size // 2)
        op = Conv(
            name=name,
            inputs=(x, weights),
            outputs=(out,),
            strides=(1, 1),
            pads_begin=pads,
            pads_end=pads,
            dilations=(1, 1),
        )
        return self.finish(op, channels)

    def up(self, x: str, channels: int) -> str:
        name = f"dec/up{len(self.ops)}"
        _, inputs, height, width = self.types[x].shape
        weights = self.constant(f"{name}.w", inputs, channels, 2, 2, axis=1)
        out = self.activation(f"{name}.y", channels, 2 * height, 2 * width)
        op = ConvTranspose(
            name=name,
            inputs=(x, weights),
            outputs=(out,),
            strides=(2, 2),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
            output_padding=(0, 0),
        )
        return self.finish(op, channels)

    def pool(self, x: str) -> str:
        name = f"enc/pool{len(self.ops)}"
        _, channels, height, width = self.types[x].shape
        out = self.activation(f"{name}.y", channels, height // 2, width // 2)
        two, none = (2, 2), (0, 0)
        self.ops.append(
            MaxPool(
                name=name,
                inputs=(x,),
                outputs=(out,),
                kernel=two,
                strides=two,
                pads_begin=none,
                pads_end=none,
                dilations=(1, 1),
            )
        )
        return out

    def concat(self, a: str, b: str) -> str:
        name = f"dec/concat{len(self.ops)}"
        _, first, height, width = self.types[a].shape
        out = self.activation(f"{name}.y", first + self.types[b].shape[1], height, width)
        self.ops.append(Concat(name=name, inputs=(a, b), outputs=(out,), axis=1))
        return out


FOUR_BITS = IntType(4, narrow=True)
SIX_BITS = IntType(6, signed=False)


def unet(
    weights: IntType = FOUR_BITS,
    kind: CodebookKind = CodebookKind.UNIFORM,
    codes: IntType = SIX_BITS,
    base: int = 4,
    size: int = 16,
    seed: int = 0,
    depth: int = 1,
) -> Graph:
    """`depth` levels with a skip connection and one below.

    uint8 pixels [1, 1, size, size] in, float logits [1, 2, size, size] out.
    """
    builder = Builder(weights, kind, codes, seed)
    builder.activation("image", 1, size, size, element=UINT8)
    table = builder.rng.integers(codes.low, codes.high + 1, 256).astype(codes.storage)
    builder.constants["pixels"] = table
    builder.types["pixels"] = TensorType((256,), codes, Quantization.per_tensor(0.05))
    x = builder.activation("codes", 1, size, size)
    builder.ops.append(Lookup(name="input", inputs=("image", "pixels"), outputs=(x,)))
    skips = []
    for level in range(depth):
        skips.append(builder.conv(builder.conv(x, base << level), base << level))
        x = builder.pool(skips[-1])
    x = builder.conv(x, base << depth)
    for level in reversed(range(depth)):
        x = builder.concat(skips[level], builder.up(x, base << level))
        x = builder.conv(x, base << level)
    x = builder.conv(x, 2, size=1)
    builder.types["logits"] = TensorType((1, 2, size, size))
    builder.ops.append(Dequantize(name="output", inputs=(x,), outputs=("logits",), scale=0.05))
    return Graph(
        "small",
        Stage.INTEGER,
        ("image",),
        ("logits",),
        tuple(builder.ops),
        builder.types,
        builder.constants,
    )


def image(graph: Graph, seed: int = 0) -> dict[str, Array]:
    shape = graph.types["image"].shape
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return {"image": pixels}


def float_unet(size: int = 16) -> Graph:
    """The same network as one float island with integer-coded weights; float logits out."""
    graph = unet(size=size)
    types = dict(graph.types)
    ops: list[Op] = [Dequantize(name="input", inputs=("image",), outputs=("codes",), scale=1 / 255)]
    types["codes"] = TensorType(types["codes"].shape)
    for op in graph.ops[1:-1]:
        types[op.output] = TensorType(types[op.output].shape)
        if isinstance(op, SumOp):
            op = dataclasses.replace(op, epilogue=None, accumulator=None, activation=RELU)
        ops.append(op)
    logits = ops[-1].output
    used = {value for op in ops for value in (*op.inputs, *op.outputs)}
    return Graph(
        "floats",
        Stage.INTEGER,
        ("image",),
        (logits,),
        tuple(ops),
        {value: kind for value, kind in types.items() if value in used},
        {value: data for value, data in graph.constants.items() if value in used},
    )
