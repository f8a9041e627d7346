"""Builds valid single-operator graphs: random types, codes, weights and honest epilogues."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import (
    Epilogue,
    NegativeBranch,
    Requantize,
    Thresholds,
    multiplier_and_shift,
    round_half_up,
)
from qcompile.ops import SumOp
from qcompile.types import (
    FLOAT32,
    TERNARY,
    Array,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    Range,
    Shape,
    TensorType,
)
from tests.op_cases.case import OpCase

Item = TypeVar("Item")


class Style(enum.Enum):
    """What kind of epilogue a case has."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    NEGATIVE = "negative"
    NEGATIVE_CHANNEL = "negative_channel"
    WIDE = "wide"
    CLAMPS = "clamps"
    CLAMPS_CHANNEL = "clamps_channel"
    CLAMPS_NEGATIVE = "clamps_negative"
    THRESHOLDS = "thresholds"
    THRESHOLDS_CHANNEL = "thresholds_channel"


STYLES = tuple(Style)
CLAMPED = (Style.CLAMPS, Style.CLAMPS_CHANNEL, Style.CLAMPS_NEGATIVE)
"""Styles whose limits of the codes differ by channel."""
CODES: tuple[IntType, ...] = (
    *(IntType(bits, signed) for bits in (2, 3, 4, 5, 6, 7, 8) for signed in (False, True)),
    TERNARY,
    IntType(8, narrow=True),
    IntType(16),
    IntType(16, signed=False),
)
FILLS = ("random", "low", "high")


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def some(rng: np.random.Generator, low: int, high: int) -> int:
    """A random integer of low..high, both included."""
    return int(rng.integers(low, high + 1))


def several(rng: np.random.Generator, count: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(some(rng, low, high) for _ in range(count))


def small_codes(rng: np.random.Generator) -> IntType:
    """A random element of at most 8 bits."""
    return pick(rng, [kind for kind in CODES if kind.bits <= 8])


def activation(element: IntType, *shape: int) -> TensorType:
    return TensorType(
        shape,
        element,
        Quantization.per_tensor(0.0625),
        Codebook(CodebookKind.UNIFORM, element.high - element.low + 1),
    )


def codes(rng: np.random.Generator, kind: TensorType, fill: str = "random") -> Array:
    """Codes of a type: random, or all the lowest, or all the highest."""
    element = kind.integer
    low, high = element.low, element.high
    if fill != "random":
        return np.full(kind.shape, low if fill == "low" else high, dtype=element.storage)
    if kind.codebook is not None and kind.codebook.kind is CodebookKind.BINARY:
        return (rng.integers(0, 2, kind.shape) * 2 - 1).astype(element.storage)
    data = rng.integers(low, high, kind.shape, dtype=np.int64, endpoint=True)
    if kind.codebook is not None and kind.codebook.kind is CodebookKind.POW2:
        powers = np.array([0, *(1 << n for n in range(element.bits - 1))], dtype=np.int64)
        data = np.sign(data) * powers[rng.integers(0, len(powers), kind.shape)]
    return np.asarray(data, dtype=element.storage)


def weights(
    rng: np.random.Generator,
    shape: Shape,
    axis: int,
    channels: int,
    fill: str = "random",
    bits: int | None = None,
) -> tuple[TensorType, Array]:
    """Integer weights of a random width and codebook with one scale per output channel."""
    kind = pick(rng, (*[CodebookKind.UNIFORM] * 6, *list(CodebookKind)[2:]))
    if bits is not None:
        kind = CodebookKind.UNIFORM
    element = IntType(bits or pick(rng, (2, 3, 4, 5, 6, 7, 8, 16)), narrow=True)
    levels = element.high - element.low + 1
    if kind in (CodebookKind.TERNARY, CodebookKind.BINARY):
        element = TERNARY
        levels = 3 if kind is CodebookKind.TERNARY else 2
    scale = tuple(float(s) for s in rng.uniform(0.01, 0.2, channels))
    result = TensorType(shape, element, Quantization(scale, axis), Codebook(kind, levels))
    return result, codes(rng, result, fill)


def random_epilogue(
    rng: np.random.Generator, reach: Range, channels: int, output: IntType, style: Style
) -> Epilogue:
    """An epilogue that maps sums of `reach` to `output`, of the given style."""
    if style in (Style.THRESHOLDS, Style.THRESHOLDS_CHANNEL):
        return _thresholds(rng, reach, channels if style is Style.THRESHOLDS_CHANNEL else 1, output)
    branched = style in (Style.NEGATIVE, Style.NEGATIVE_CHANNEL, Style.CLAMPS_NEGATIVE)
    low = 0 if not branched and rng.random() < 0.3 else output.low
    limits = [Range(low, output.high)]
    if style in (Style.CHANNEL, Style.NEGATIVE_CHANNEL):
        limits *= channels
    if style in CLAMPED:
        limits = _limits(rng, limits[0], channels)
    if style is Style.CLAMPS:  # all but the limits is alike
        rows = [_channel(rng, reach, Range(low, output.high), False, True)]
    else:
        rows = [_channel(rng, reach, codes, branched, style is Style.WIDE) for codes in limits]
    epilogue = Requantize(
        multipliers=tuple(row.multiplier for row in rows),
        biases=tuple(row.bias for row in rows),
        shifts=tuple(row.shift for row in rows),
        lows=tuple(codes.low for codes in limits),
        highs=tuple(codes.high for codes in limits),
        acc_low=tuple(row.acc_low for row in rows),
        acc_high=tuple(row.acc_high for row in rows),
        negative=NegativeBranch(
            tuple(row.pivot for row in rows),
            tuple(row.negative_multiplier for row in rows),
            tuple(row.negative_bias for row in rows),
        )
        if branched
        else None,
    )
    assert epilogue.product_range().magnitude < 1 << 62, epilogue
    return epilogue


def _limits(rng: np.random.Generator, codes: Range, channels: int) -> list[Range]:
    """Limits within `codes`, others in each channel; at times only one end moves."""
    ends = np.sort(rng.integers(codes.low, codes.high, (channels, 2), endpoint=True), axis=1)
    fixed = pick(rng, ("none", "low", "high"))
    return [
        Range(codes.low if fixed == "low" else low, codes.high if fixed == "high" else high)
        for low, high in ends.tolist()
    ]


def limited(kind: TensorType, epilogue: Epilogue, axis: int) -> TensorType:
    """The output's type with the limits that the epilogue keeps, if they differ by channel."""
    if not isinstance(epilogue, Requantize) or len(epilogue.lows) == 1:
        return kind
    limits = CodeLimits(epilogue.lows, epilogue.highs)
    return dataclasses.replace(kind, limits=limits if axis == 1 else limits.whole())


@dataclasses.dataclass(frozen=True)
class _Channel:
    multiplier: int
    bias: int
    shift: int
    acc_low: int
    acc_high: int
    pivot: int
    negative_multiplier: int
    negative_bias: int


def _channel(
    rng: np.random.Generator, reach: Range, output: Range, branched: bool, wide: bool
) -> _Channel:
    span = max(1, reach.high - reach.low)
    width = output.high - output.low + 1
    ratio = Fraction(float(rng.uniform(0.3, 6.0))) * Fraction(width, span)
    unsaturated = min(reach.magnitude, int((output.magnitude + 1) / ratio) + 1)
    multiplier, shift = multiplier_and_shift(ratio, unsaturated)
    # Wide cases take a finer multiplier than needed, so that products leave 32 bits but not 64.
    extra = max(0, min(some(rng, 8, 16), 57 - width.bit_length() - shift)) if wide else 0
    offset = Fraction(float(rng.normal() * width / 6))
    multiplier, shift = multiplier << extra, shift + extra
    half = 1 << (shift - 1)
    bias = round_half_up(offset * (1 << shift)) + half
    pivot, negative_multiplier, negative_bias = reach.low, multiplier, bias
    if branched:
        pivot = some(rng, reach.low // 2, reach.high // 2)
        slope = pick(rng, (Fraction(0), Fraction(1, 100), Fraction(1, 5), Fraction(-1, 4)))
        negative_multiplier = round_half_up(slope * multiplier)
        negative_bias = half + round_half_up(offset * (1 << shift) / 2)
    lower = (negative_multiplier, negative_bias) if reach.low < pivot else (multiplier, bias)
    upper = (multiplier, bias) if reach.high >= pivot else (negative_multiplier, negative_bias)
    acc_low, acc_high = reach.low, reach.high
    if not wide:
        end = pivot - 1 if reach.low < pivot else reach.high
        start = pivot if reach.high >= pivot else reach.low
        acc_low = min(max(_plateau(*lower, shift, output, True), reach.low), end, reach.high)
        acc_high = max(min(_plateau(*upper, shift, output, False), reach.high), start, reach.low)
        # Two plateaus may overlap where one saturates everywhere; then nothing is cut off.
        if acc_low > acc_high:
            acc_low, acc_high = reach.low, reach.high
    return _Channel(
        multiplier, bias, shift, acc_low, acc_high, pivot, negative_multiplier, negative_bias
    )


def _plateau(multiplier: int, bias: int, shift: int, output: Range, lower: bool) -> int:
    """The last sum (from below if `lower`) up to which the result stays saturated."""
    far = 1 << 80
    if multiplier == 0:
        return far if lower else -far
    at_top = output.high << shift
    below_second = ((output.low + 1) << shift) - 1
    if multiplier > 0:
        return (below_second - bias) // multiplier if lower else -((bias - at_top) // multiplier)
    if lower:
        return (bias - at_top) // -multiplier
    return -((below_second - bias) // -multiplier)


def _thresholds(
    rng: np.random.Generator, reach: Range, channels: int, output: IntType
) -> Thresholds:
    low, step, count = pick(
        rng,
        (
            (-1, 1, 2),
            (-1, 2, 1),
            (0, 1, 1),
            (output.low, 1, min(output.high - output.low, 15)),
        ),
    )
    low = max(low, output.low)
    count = min(count, (output.high - low) // step)
    limits = rng.integers(reach.low, reach.high, (count, channels), dtype=np.int64, endpoint=True)
    limits.sort(axis=0)
    return Thresholds(tuple(tuple(int(v) for v in row) for row in limits), low, step)


def one_op(
    name: str,
    op: Op,
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    output: TensorType,
    feeds: Mapping[str, Array],
) -> OpCase:
    """A graph that consists of `op`; inputs that are not constants are graph inputs."""
    inputs = tuple(v for v in dict.fromkeys(op.inputs) if v not in constants)
    graph = Graph(
        name,
        Stage.INTEGER,
        inputs,
        op.outputs,
        (op,),
        {**types, op.output: output},
        dict(constants),
    )
    return OpCase(name, graph, {value: feeds[value] for value in inputs})


def sum_case(
    rng: np.random.Generator,
    name: str,
    op: SumOp,
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    style: Style,
    fill: str = "random",
    output: IntType | None = None,
    feeds: Mapping[str, Array] | None = None,
) -> OpCase:
    """Completes a sum operator by its proven accumulator and a random epilogue."""
    kinds = [types[value] for value in op.inputs]
    reach = op.reach(kinds, [constants.get(value) for value in op.inputs])
    shape = op.infer_shape([kind.shape for kind in kinds])
    element = output or pick(rng, CODES)
    if style in (Style.THRESHOLDS, Style.THRESHOLDS_CHANNEL):
        element = output or pick(rng, (TERNARY, IntType(4), IntType(3), IntType(8)))
    axis = op.channel_axis(len(shape))
    epilogue = random_epilogue(rng, reach, shape[axis], element, style)
    op = dataclasses.replace(op, epilogue=epilogue, accumulator=IntType.holding(reach))
    given = feeds or {
        value: codes(rng, kind, fill) for value, kind in types.items() if value not in constants
    }
    made = limited(activation(element, *shape), epilogue, axis)
    return one_op(f"{name}_{style.value}_{fill}", op, types, constants, made, given)


def movement_case(
    rng: np.random.Generator,
    name: str,
    op: Op,
    types: Mapping[str, TensorType],
    fill: str = "random",
) -> OpCase:
    """An operator whose output has the type of its first input."""
    shape = op.infer_shape([types[value].shape for value in op.inputs])
    output = dataclasses.replace(types[op.inputs[0]], shape=shape)
    feeds = {value: codes(rng, kind, fill) for value, kind in types.items()}
    return one_op(f"{name}_{fill}", op, types, {}, output, feeds)


def float_type(*shape: int) -> TensorType:
    return TensorType(shape, FLOAT32)
