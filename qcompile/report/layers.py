"""One row for each operator of the compiled network: its formats, its cost, and its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.feeds import Feed, float_feed, integer_feed
from qcompile.graph import Graph, Op
from qcompile.multiplications import flops, multiplications, weight_type
from qcompile.ops import Conv, ConvTranspose, Dequantize, Lookup, SumOp
from qcompile.passes.calibrate import finite_range
from qcompile.report.formats import describe_format, element_bits, level_count, stored_bits
from qcompile.report.operations import operations
from qcompile.sim.executor import Executor
from qcompile.types import (
    Array,
    IntType,
    Shape,
    TensorType,
    per_channel,
)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How close one integer tensor is to its float counterpart, over some images.

    Attributes:
        saturated: share of codes at the end of the representable range (the lower end counts only
            where negative codes exist, so the zeros of a ReLU do not).
        sqnr_db: 10 log10(sum f**2 / sum (f - q)**2); None where it is undefined or infinite.
        cosine: of the angle between both tensors; None if one is all zero.
        max_error: largest |f - q| in steps of the integer tensor; None for float tensors.
    """

    saturated: float | None
    sqnr_db: float | None
    cosine: float | None
    max_error: float | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What the report says of one operator. Bits are 32 for floats, None where there is nothing.

    `value` is the name of the tensor that it writes, `reads` those of the tensors that it computes
    with (no constants), `kernel` the spatial sizes of its weights. Levels are how many values there
    can be.
    """

    name: str
    operator: str
    inputs: tuple[Shape, ...]
    output: Shape
    weight_bits: int | None
    weight_format: str | None
    activation_bits: int
    activation_format: str
    accumulator_bits: int | None
    parameters: int
    macs: int
    bops: int
    weight_bytes: int
    const_bytes: int | None
    fidelity: Fidelity | None
    value: str = ""
    reads: tuple[str, ...] = ()
    kernel: Shape = ()
    weight_levels: int | None = None
    activation_levels: int | None = None
    flops: int = 0


@dataclass(slots=True)
class _Sums:
    """Running sums of one pair of tensors."""

    count: int = 0
    ends: int = 0
    signal: float = 0.0
    noise: float = 0.0
    quantized: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    kind: TensorType = field(default_factory=lambda: TensorType(()))

    def add(self, real: Array, codes: Array) -> None:
        wanted = real.astype(np.float64).reshape(-1)
        scale = real_scale(self.kind)
        found = codes.astype(np.float64)
        if scale is not None:
            found = found * scale
        error = np.abs(found.reshape(-1) - wanted)
        if scale is not None:
            steps = error.reshape(codes.shape) / scale
            self.largest = max(self.largest, float(steps.max()))
        found = found.reshape(-1)
        self.count += wanted.size
        if isinstance(self.kind.element, IntType):
            element = self.kind.element
            self.ends += int(np.count_nonzero(codes == element.high))
            if element.signed:
                self.ends += int(np.count_nonzero(codes == element.low))
        self.signal += float(wanted @ wanted)
        self.quantized += float(found @ found)
        self.product += float(wanted @ found)
        self.noise += float(error @ error)

    def result(self) -> Fidelity:
        integer = not self.kind.is_float
        power = self.signal * self.quantized
        return Fidelity(
            round(self.ends / self.count, 6) if integer else None,
            round(10 * math.log10(self.signal / self.noise), 2)
            if self.signal > 0 and self.noise > 0
            else None,
            round(self.product / math.sqrt(power), 6) if power > 0 else None,
            round(self.largest, 2) if integer else None,
        )


def real_scale(kind: TensorType) -> Array | None:
    """The scale of an integer tensor, shaped to broadcast; None for floats and plain indices."""
    if kind.is_float or kind.quantization is None:
        return None
    return per_channel(kind.quantization.scale, "float64", kind.quantization.axis, kind.rank)


def measure_fidelity(
    float_graph: Graph,
    integer_graph: Graph,
    feeds: Sequence[Feed],
    specs: Mapping[str, InputSpec],
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[str, Array, Array], None] | None = None,
) -> dict[str, Fidelity]:
    """Compares every tensor that both graphs have, by value name of the compiled network.

    The codes behind an output (`y.codes`, which become the output `y`) count as the float `y`.

    Args:
        float_graph: the network before quantization, whose value names the compiled one keeps.
        integer_graph: the compiled network.
        feeds: raw inputs.
        specs: how pixels become real numbers, for each input.
        progress: called with (done, total) images.
        observe: sees each pair: name in the compiled network, float tensor, codes.

    Raises:
        ModelError: the float network computes infinities or NaN.
    """
    sums: dict[str, _Sums] = {}
    known = set(float_graph.activations()) - set(float_graph.inputs)
    origin = {op.inputs[0]: op.output for op in integer_graph.ops if isinstance(op, Dequantize)}
    for op in integer_graph.ops:
        kind = integer_graph.output_type(op)
        comparable = kind.is_float or kind.quantization is not None
        if op.output in known:
            origin[op.output] = op.output
        name = origin.get(op.output)
        if name in known and comparable and float_graph.types[name].shape == kind.shape:
            sums[op.output] = _Sums(kind=kind)
    float_executor, integer_executor = Executor(float_graph), Executor(integer_graph)
    for index, feed in enumerate(feeds):
        with np.errstate(all="ignore"):
            real = float_executor.run(float_feed(feed, specs), taps={origin[name] for name in sums})
        for name in sums:
            finite_range(float_graph, origin[name], real[origin[name]])

        def compare(name: str, codes: Array, real: Mapping[str, Array] = real) -> None:
            if name in sums:
                sums[name].add(real[origin[name]], codes)
                if observe is not None:
                    observe(name, real[origin[name]], codes)

        integer_executor.run(integer_feed(feed, integer_graph, specs), observe=compare)
        if progress is not None:
            progress(index + 1, len(feeds))
    return {name: item.result() for name, item in sums.items() if item.count}


def layer_rows(
    float_graph: Graph,
    integer_graph: Graph,
    fidelity: Mapping[str, Fidelity],
    const_bytes: Mapping[str, int] | None = None,
) -> tuple[LayerRow, ...]:
    """The rows of the report, in order of execution.

    Args:
        float_graph: tells the parameters (biases are inside epilogues after lowering).
        integer_graph: has the operators that run.
        fidelity: from `measure_fidelity`.
        const_bytes: operator name -> bytes of its constants as emitted; None if nothing is emitted.
    """
    rows = []
    for op in integer_graph.ops:
        output = integer_graph.output_type(op)
        weight = weight_type(integer_graph, op)
        data = [value for value in op.inputs if not integer_graph.is_constant(value)]
        weight_bits = None if weight is None else stored_bits(weight)
        rows.append(
            LayerRow(
                name=op.name,
                operator=op.kind,
                inputs=tuple(integer_graph.types[value].shape for value in data),
                output=output.shape,
                weight_bits=weight_bits,
                weight_format=None if weight is None else describe_format(weight),
                activation_bits=element_bits(output),
                activation_format=describe_format(output),
                weight_levels=None if weight is None else level_count(weight),
                activation_levels=level_count(output),
                accumulator_bits=op.accumulator.bits
                if isinstance(op, SumOp) and op.accumulator is not None
                else None,
                parameters=_parameters(float_graph, integer_graph, op),
                macs=multiplications(integer_graph, op),
                bops=sum(item.bit_operations for item in operations(integer_graph, op).products),
                weight_bytes=_weight_bytes(integer_graph, op),
                const_bytes=None if const_bytes is None else const_bytes.get(op.name, 0),
                fidelity=fidelity.get(op.output),
                value=op.output,
                reads=tuple(data),
                kernel=()
                if weight is None or not isinstance(op, Conv | ConvTranspose)
                else weight.shape[2:],
                flops=flops(integer_graph, op),
            )
        )
    return tuple(rows)


def _weight_bytes(graph: Graph, op: Op) -> int:
    """Bytes of the operator's constants, at the bits of each code (tables do not count)."""
    if isinstance(op, Lookup):
        return 0
    kinds = [graph.types[value] for value in dict.fromkeys(op.inputs) if graph.is_constant(value)]
    return sum(-(-kind.size * stored_bits(kind) // 8) for kind in kinds)


def _parameters(float_graph: Graph, integer_graph: Graph, op: Op) -> int:
    """Parameters of the float operator that became `op`; its own constants if there is none."""
    origin = float_graph.producers.get(op.output) or float_graph.by_name.get(op.name)
    graph = float_graph
    if origin is None or type(origin) is not type(op):
        if isinstance(op, Lookup):
            return 0
        origin, graph = op, integer_graph
    values = dict.fromkeys(origin.inputs)
    return sum(graph.types[value].size for value in values if graph.is_constant(value))
