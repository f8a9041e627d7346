"""Random small graphs of the integer stage: inputs, branches, joins, every kind of layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Dequantize,
    Lookup,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    PadMode,
    ReduceMean,
    Rescale,
    Reshape,
    Slice,
    SumOp,
    Transpose,
)
from qcompile.ops.code_limits import moved_limits
from qcompile.types import Array, IntType, TensorType
from tests.op_cases.build import (
    CODES,
    STYLES,
    Style,
    activation,
    codes,
    float_type,
    limited,
    pick,
    random_epilogue,
    several,
    some,
    weights,
)

LARGEST = 4096
"""Elements of one activation."""


@dataclasses.dataclass
class Growing:
    """A graph that grows by one random operator at a time."""

    rng: np.random.Generator
    types: dict[str, TensorType] = dataclasses.field(default_factory=dict)
    constants: dict[str, Array] = dataclasses.field(default_factory=dict)
    ops: list[Op] = dataclasses.field(default_factory=list)
    alive: list[str] = dataclasses.field(default_factory=list)

    def any_value(self) -> str:
        """A value of rank 4; recent ones more often, so that graphs get deep."""
        images = [value for value in self.alive if self.types[value].rank == 4]
        return images[-1 - min(int(self.rng.geometric(0.5)) - 1, len(images) - 1)]

    def twin(self, value: str) -> str:
        """A value of the same shape (perhaps the same one)."""
        shape = self.types[value].shape
        return pick(self.rng, [other for other in self.alive if self.types[other].shape == shape])

    def name(self, stem: str) -> str:
        return f"{stem}{len(self.ops)}"

    def keep(self, op: Op, kind: TensorType) -> None:
        if kind.size <= LARGEST:
            self.types[op.output] = kind
            self.ops.append(op)
            self.alive.append(op.output)

    def move(self, op: Op) -> None:
        shape = op.infer_shape([self.types[value].shape for value in op.inputs])
        limits = moved_limits(op, [self.types[value] for value in op.inputs])
        kind = dataclasses.replace(self.types[op.inputs[0]], shape=shape, limits=limits)
        self.keep(op, kind)

    def sum(self, op: SumOp) -> None:
        kinds = [self.types[value] for value in op.inputs]
        shape = op.infer_shape([kind.shape for kind in kinds])
        reach = op.reach(kinds, [self.constants.get(value) for value in op.inputs])
        style = pick(self.rng, STYLES)
        narrow = style in (Style.THRESHOLDS, Style.THRESHOLDS_CHANNEL)
        element = IntType(4) if narrow else pick(self.rng, CODES)
        channels = shape[op.channel_axis(len(shape))]
        epilogue = random_epilogue(self.rng, reach, channels, element, style)
        op = dataclasses.replace(op, epilogue=epilogue, accumulator=IntType.holding(reach))
        kind = activation(element, *shape)
        self.keep(op, limited(kind, epilogue, op.channel_axis(len(shape))))

    def weighted(self, op: SumOp, shape: tuple[int, ...], axis: int) -> None:
        kind, data = weights(self.rng, shape, axis, shape[axis])
        self.types[op.inputs[1]], self.constants[op.inputs[1]] = kind, data
        self.sum(op)


def _conv(graph: Growing) -> None:
    rng, x = graph.rng, graph.any_value()
    _, channels, height, width = graph.types[x].shape
    kernel = (some(rng, 1, min(3, height)), some(rng, 1, min(3, width)))
    groups = channels if rng.random() < 0.25 else 1
    name = graph.name("conv")
    op = Conv(
        name=name,
        inputs=(x, f"{name}.w"),
        outputs=(f"{name}.y",),
        strides=several(rng, 2, 1, 2),
        pads_begin=several(rng, 2, 0, 1),
        pads_end=several(rng, 2, 0, 1),
        dilations=(1, 1),
        groups=groups,
    )
    outputs = groups * some(rng, 1, 2) if groups > 1 else some(rng, 1, 6)
    graph.weighted(op, (outputs, channels // groups, *kernel), 0)


def _conv_transpose(graph: Growing) -> None:
    rng, x = graph.rng, graph.any_value()
    name = graph.name("up")
    kernel, strides = several(rng, 2, 1, 3), several(rng, 2, 1, 2)
    op = ConvTranspose(
        name=name,
        inputs=(x, f"{name}.w"),
        outputs=(f"{name}.y",),
        strides=strides,
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        output_padding=tuple(some(rng, 0, stride - 1) for stride in strides),
    )
    graph.weighted(op, (graph.types[x].shape[1], some(rng, 1, 4), *kernel), 1)


def _pool(graph: Growing) -> None:
    rng, x = graph.rng, graph.any_value()
    _, _, height, width = graph.types[x].shape
    kernel = (min(2, height), min(2, width))
    name = graph.name("pool")
    window = {
        "kernel": kernel,
        "strides": several(rng, 2, 1, 2),
        "pads_begin": tuple(some(rng, 0, k - 1) for k in kernel),
        "pads_end": (0, 0),
        "dilations": (1, 1),
    }
    if rng.random() < 0.5:
        graph.move(MaxPool(name=name, inputs=(x,), outputs=(f"{name}.y",), **window))
    else:
        graph.sum(AveragePool(name=name, inputs=(x,), outputs=(f"{name}.y",), **window))


def _pair(graph: Growing) -> None:
    rng, a = graph.rng, graph.any_value()
    b = graph.twin(a)
    name = graph.name("pair")
    if rng.random() < 0.5:
        factors = (some(rng, 1, 9), some(rng, -9, 9))
        graph.sum(Add(name=name, inputs=(a, b), outputs=(f"{name}.y",), weights=factors))
    else:
        graph.sum(Mul(name=name, inputs=(a, b), outputs=(f"{name}.y",)))


def _gate(graph: Growing) -> None:
    """Squeeze and excite: a mean over the image multiplies the channels."""
    x, name = graph.any_value(), graph.name("mean")
    count = len(graph.ops)
    graph.sum(ReduceMean(name=name, inputs=(x,), outputs=(f"{name}.y",), axes=(2, 3)))
    if len(graph.ops) > count:
        graph.sum(Mul(name=f"{name}.gate", inputs=(x, f"{name}.y"), outputs=(f"{name}.z",)))


def _concat(graph: Growing) -> None:
    x = graph.any_value()
    kind = graph.types[x]
    same = [
        value
        for value in graph.alive
        if graph.types[value].element == kind.element
        and graph.types[value].shape[2:] == kind.shape[2:]
        and graph.types[value].rank == 4
    ]
    name = graph.name("concat")
    inputs = (x, *(pick(graph.rng, same) for _ in range(some(graph.rng, 1, 2))))
    graph.move(Concat(name=name, inputs=inputs, outputs=(f"{name}.y",), axis=1))


def _movement(graph: Growing) -> None:
    rng, x = graph.rng, graph.any_value()
    kind = graph.types[x]
    shape = kind.shape
    name = graph.name("move")
    common = {"name": name, "inputs": (x,), "outputs": (f"{name}.y",)}
    choice = some(rng, 0, 4)
    if choice == 0:
        sources = tuple(tuple(p // 2 for p in range(2 * size)) for size in shape[2:])
        graph.move(NearestResize(**common, sources=sources))
    elif choice == 1:
        mode = pick(rng, tuple(PadMode))
        most = [0, 0, *(min(2, size - 1) for size in shape[2:])]
        begins, ends = (tuple(some(rng, 0, m) for m in most) for _ in range(2))
        code = some(rng, kind.integer.low, kind.integer.high)
        graph.move(Pad(**common, begins=begins, ends=ends, mode=mode, code=code))
    elif choice == 2:
        starts = tuple(some(rng, 0, size - 1) for size in shape)
        sizes = tuple(size - start for size, start in zip(shape, starts, strict=True))
        graph.move(Slice(**common, starts=starts, sizes=sizes, steps=(1, 1, 1, 1)))
    elif choice == 3:
        graph.move(Transpose(**common, permutation=(0, 1, 3, 2)))
    else:
        target = (1, shape[2], shape[1], shape[3])
        graph.move(Reshape(**common, shape=target))


def _rescale(graph: Growing) -> None:
    x, name = graph.any_value(), graph.name("scale")
    graph.sum(Rescale(name=name, inputs=(x,), outputs=(f"{name}.y",)))


def _lookup(graph: Growing) -> None:
    x, name = graph.any_value(), graph.name("table")
    kind = graph.types[x]
    if kind.integer.bits > 8:
        return
    element = pick(graph.rng, CODES)
    entries = kind.integer.high - kind.integer.low + 1
    shape = (kind.shape[1], entries) if graph.rng.random() < 0.5 else (entries,)
    table = activation(element, *shape)
    graph.types[f"{name}.t"] = table
    graph.constants[f"{name}.t"] = codes(graph.rng, table)
    op = Lookup(name=name, inputs=(x, f"{name}.t"), outputs=(f"{name}.y",), lowest=kind.integer.low)
    graph.keep(op, activation(element, *kind.shape))


LAYERS: tuple[Callable[[Growing], None], ...] = (
    _conv,
    _conv,
    _conv,
    _conv_transpose,
    _pool,
    _pair,
    _gate,
    _concat,
    _movement,
    _movement,
    _rescale,
    _lookup,
)


def random_graph(seed: int) -> tuple[Graph, Mapping[str, Array]]:
    """A graph of up to 12 operators and values for its inputs."""
    rng = np.random.default_rng(seed)
    graph = Growing(rng)
    inputs = tuple(f"input{i}" for i in range(some(rng, 1, 2)))
    shape = (1, some(rng, 1, 5), some(rng, 1, 9), some(rng, 1, 9))
    for value in inputs:
        graph.types[value] = activation(pick(rng, CODES), *shape)
        graph.alive.append(value)
    for _ in range(some(rng, 1, 12)):
        pick(rng, LAYERS)(graph)
    if not graph.ops:
        _rescale(graph)
    last = graph.any_value()
    kind = graph.types[last]
    outputs = [graph.ops[-1].output]
    if rng.random() < 0.5:
        op: Op = Dequantize(name="real", inputs=(last,), outputs=("real",), scale=0.0625)
        graph.keep(op, float_type(*kind.shape))
    else:
        element = IntType(max(1, (kind.shape[1] - 1).bit_length()), signed=False)
        arg = ArgMax(name="best", inputs=(last,), outputs=("best",), axis=1, keepdims=False)
        graph.keep(arg, TensorType(arg.infer_shape([kind.shape]), element))
    outputs.append(graph.ops[-1].output)
    made = Graph(
        f"random{seed}",
        Stage.INTEGER,
        inputs,
        tuple(dict.fromkeys(outputs)),
        tuple(graph.ops),
        graph.types,
        graph.constants,
    )
    return made, {value: codes(rng, graph.types[value]) for value in inputs}
