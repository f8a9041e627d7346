"""The masked network, built without the code that removes: the definition it is held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcompile.graph import Graph, Op, infer_missing_types
from qcompile.ops import Concat, Conv, ConvTranspose, LocalAttention2d, MatMul, Mul, Pad, Slice
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.types import FLOAT32, Array, TensorType

Classes = Sequence[frozenset[Channel]]


def silenced(graph: Graph, removed: frozenset[Channel]) -> Graph:
    """Filters of removed channels have zero weights and keep their bias."""
    constants = dict(graph.constants)
    for op in graph.ops:
        gone = [index for value, index in removed if value == op.output]
        if not gone or not isinstance(op, (Conv, ConvTranspose, MatMul)):
            continue
        weights = constants[op.inputs[1]].copy()
        if isinstance(op, Conv):
            weights[gone] = 0
        elif isinstance(op, MatMul):
            weights[:, gone] = 0
        else:
            per_group = weights.shape[1]
            rows = weights.shape[0] // op.groups
            for index in gone:
                group = index // per_group
                weights[group * rows : (group + 1) * rows, index % per_group] = 0
        constants[op.inputs[1]] = weights
    return dataclasses.replace(graph, constants=constants)


def ignoring(graph: Graph, ignored: frozenset[Channel]) -> Graph:
    """Every weight that reads one of these channels is zero."""
    constants = dict(graph.constants)
    for op in graph.ops:
        if not isinstance(op, (Conv, ConvTranspose, MatMul)):
            continue
        weights = constants[op.inputs[1]].copy()
        for value, index in ignored:
            if value != op.inputs[0]:
                continue
            if isinstance(op, Conv) and op.groups == 1:
                weights[:, index] = 0
            elif graph.types[value].rank == 2 or getattr(op, "groups", 0) == 1:
                weights[index] = 0
        constants[op.inputs[1]] = weights
    return gated(dataclasses.replace(graph, constants=constants), ignored)


def gated(graph: Graph, ignored: frozenset[Channel]) -> Graph:
    """Local attention reads these channels as zeros."""
    ops: list[Op] = []
    types, constants = dict(graph.types), dict(graph.constants)
    for op in graph.ops:
        if isinstance(op, LocalAttention2d):
            names = list(op.inputs)
            for side, name in enumerate(op.inputs[:3]):
                count = types[name].shape[1]
                gate = np.array([(name, c) not in ignored for c in range(count)], np.float32)
                if gate.all():
                    continue
                names[side], factor = f"{op.name}.read{side}", f"{op.name}.gate{side}"
                constants[factor] = gate.reshape(-1, 1, 1)
                types[factor] = TensorType((count, 1, 1), FLOAT32)
                ops.append(Mul(name=names[side], inputs=(name, factor), outputs=(names[side],)))
            op = dataclasses.replace(op, inputs=tuple(names))
        ops.append(op)
    infer_missing_types(ops, types)
    return dataclasses.replace(graph, ops=tuple(ops), types=types, constants=constants)


def padded_with(graph: Graph, constants: Mapping[Channel, float]) -> Graph:
    """Convolutions that read one of these channels pad it with its constant, others with zero: a
    Pad for every channel, joined, and a convolution without padding."""
    ops: list[Op] = []
    types: dict[str, TensorType] = dict(graph.types)
    for op in graph.ops:
        reads = [c for c in constants if c[0] == op.inputs[0]]
        pads = isinstance(op, Conv) and any((*op.pads_begin, *op.pads_end))
        if not reads or not isinstance(op, Conv) or not pads or op.groups != 1:
            ops.append(op)
            continue
        shape = graph.types[op.inputs[0]].shape
        parts = []
        for channel in range(shape[1]):
            name = f"{op.name}.channel{channel}"
            cut: dict[str, Any] = {"inputs": (op.inputs[0],), "outputs": (f"{name}.cut",)}
            starts = (0, channel, *[0] * (len(shape) - 2))
            sizes = (1, 1, *shape[2:])
            ones = (1,) * len(shape)
            ops.append(Slice(name=f"{name}.cut", **cut, starts=starts, sizes=sizes, steps=ones))
            ops.append(
                Pad(
                    name=name,
                    inputs=(f"{name}.cut",),
                    outputs=(name,),
                    begins=(0, 0, *op.pads_begin),
                    ends=(0, 0, *op.pads_end),
                    value=constants.get((op.inputs[0], channel), 0.0),
                )
            )
            parts.append(name)
        joined = f"{op.name}.padded"
        ops.append(Concat(name=joined, inputs=tuple(parts), outputs=(joined,), axis=1))
        none = (0,) * len(op.pads_begin)
        inputs = (joined, *op.inputs[1:])
        ops.append(dataclasses.replace(op, inputs=inputs, pads_begin=none, pads_end=none))
    infer_missing_types(ops, types)
    return dataclasses.replace(graph, ops=tuple(ops), types=types)


def masked(graph: Graph, classes: Classes, constants: Mapping[Channel, float]) -> Graph:
    """The masked network: classes with a constant hold it, the others are ignored."""
    held = frozenset(c for channels in classes if channels & constants.keys() for c in channels)
    removed = frozenset(c for channels in classes for c in channels)
    return padded_with(ignoring(silenced(graph, removed), removed - held), constants)


def some_classes(graph: Graph, share: float, seed: int = 0) -> list[frozenset[Channel]]:
    """Random classes, never all channels of a value."""
    rng = np.random.default_rng(seed)
    left = {n: graph.types[n].shape[1] for n in graph.activations() if graph.types[n].rank > 1}
    chosen = []
    for channels in channel_classes(graph).removable:
        names = [name for name, _ in channels]
        if rng.random() < share and all(left[name] > names.count(name) for name in names):
            chosen.append(channels)
            for name in names:
                left[name] -= 1
    return chosen


def close(actual: Array, expected: Array) -> None:
    """Equal up to the rounding of float32 sums in another order."""
    limit = 2e-5 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit)
