"""The integer epilogue of a sum: multipliers, biases, shifts and clamps from real numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Op
from qcompile.lowering.curve import (
    HALF,
    Accuracy,
    Curve,
    Line,
    Offsets,
    accuracy_of,
    signed,
    straight,
)
from qcompile.numerics import (
    Epilogue,
    NegativeBranch,
    Requantize,
    Thresholds,
    multiplier_and_shift,
    requantize,
    round_half_up,
)
from qcompile.ops.activation import Activation
from qcompile.types import CodebookKind, CodeLimits, Range, TensorType

INT32 = Range(-(1 << 31), (1 << 31) - 1)


def make_epilogue(
    op: Op,
    units: Sequence[Fraction],
    biases: Sequence[Fraction],
    activation: Activation,
    output: TensorType,
    reach: Range,
) -> Epilogue:
    """The epilogue that computes round(activation(acc * unit + bias) / scale), clamped.

    An imported grid rounds in its own way and gets multipliers of 24 bits (`imported_error`).

    Args:
        op: the operator, for messages.
        units: the real value of one unit of the sum, one entry or one per channel, not negative
            unless the operator's own factor is (norms with negative gain).
        biases: real biases, one entry or one per channel.
        output: element type, per-tensor quantization, codebook and limits of the output; limits
            by channel run along the operator's channel axis.
        reach: the proven range of the sum.

    Raises:
        UnsupportedError: a binary output would need a falling function, or one of its two codes
            lies outside of the limits.
    """
    assert output.quantization is not None
    scale = output.quantization.exact()
    is_relu = activation.slope == (0.0,) and _plain(activation)
    if is_relu:
        # A ReLU only moves the lower clamp.
        activation = dataclasses.replace(activation, slope=(1.0,))
    limits = output.limits or CodeLimits((output.integer.low,), (output.integer.high,))
    act = activation
    count = max(map(len, (units, biases, act.slope, act.gain, act.shift, limits.low)))
    curves = [curve_of(_at(units, c), _at(biases, c), act, c, scale) for c in range(count)]
    kind = output.codebook.kind if output.codebook else CodebookKind.UNIFORM
    if kind is CodebookKind.BINARY:
        _check_binary(op, curves, limits)
        return _binary(curves, reach)
    codes = [_codes(limits.at(c), act, is_relu, scale) for c in range(count)]
    if kind is CodebookKind.TERNARY and all(rises(curve) for curve in curves):
        return _ternary(curves, codes, reach)
    if output.quantization.imported is None:
        curves = [straight(curve, ends) for curve, ends in zip(curves, codes, strict=True)]
    accuracy = accuracy_of(output, codes)
    return _requantize([signed(op, c, reach, accuracy) for c in curves], codes, reach, accuracy)


def _codes(limits: Range, activation: Activation, is_relu: bool, scale: Fraction) -> Range:
    """The codes of one channel: its limits, cut by the bounds of the activation. Where the two do
    not meet, the nearest code is left."""
    low, high = limits.low, limits.high
    if activation.low != -math.inf:
        low = max(low, min(high, round_half_up(Fraction(activation.low) / scale)))
    if activation.high != math.inf:
        high = min(high, max(low, round_half_up(Fraction(activation.high) / scale)))
    if is_relu:
        low = max(low, min(high, 0))
    return Range(low, high)


def _at(values: Sequence[Fraction], channel: int) -> Fraction:
    return values[channel if len(values) > 1 else 0]


def _plain(activation: Activation) -> bool:
    return activation.gain == (1.0,) and activation.shift == (0.0,)


def curve_of(
    unit: Fraction, bias: Fraction, activation: Activation, channel: int, scale: Fraction
) -> Curve:
    """activation(acc * unit + bias) of one channel, in steps of `scale`."""

    def real(values: tuple[float, ...]) -> Fraction:
        return Fraction(values[channel if len(values) > 1 else 0])

    slope, gain, shift = real(activation.slope), real(activation.gain), real(activation.shift)
    above = Line(unit * gain / scale, (bias * gain + shift) / scale)
    below = Line(slope * above.slope, (slope * bias * gain + shift) / scale)
    if slope == 1:
        return Curve(above, above, None)
    if unit == 0:
        line = above if bias >= 0 else below
        return Curve(line, line, None)
    if unit < 0:
        # z < 0 holds for large sums: exchange the two lines.
        return Curve(below, above, math.floor(-bias / unit) + 1)
    return Curve(above, below, math.ceil(-bias / unit))


def rises(curve: Curve) -> bool:
    """Whether the output never falls while the sum rises."""
    return curve.above.slope >= 0 and curve.below.slope >= 0


def _requantize(
    curves: Sequence[tuple[Curve, Offsets]],
    codes: Sequence[Range],
    reach: Range,
    accuracy: Accuracy,
) -> Requantize:
    def channels(shift: int | None) -> list[Requantize]:
        return [
            _channel(curve, offsets, limits, reach, shift, accuracy.error)
            for (curve, offsets), limits in zip(curves, codes, strict=True)
        ]

    per_channel = channels(None)
    common = join_channels(channels(max(part.shifts[0] for part in per_channel)))
    separate = join_channels(per_channel)
    common_fits = INT32.contains(common.product_range())
    separate_helps = len(separate.shifts) > 1 and INT32.contains(separate.product_range())
    return separate if separate_helps and not common_fits else common


def join_channels(parts: Sequence[Requantize]) -> Requantize:
    """Channels side by side; vectors that are alike shrink to one entry."""

    def vector(get: Callable[[Requantize], int]) -> tuple[int, ...]:
        values = tuple(get(part) for part in parts)
        return values[:1] if len(set(values)) == 1 else values

    negative = None
    if any(part.negative is not None for part in parts):
        branches = [part.negative or _same_branch(part) for part in parts]
        negative = NegativeBranch(
            _shrink(tuple(branch.pivots[0] for branch in branches)),
            _shrink(tuple(branch.multipliers[0] for branch in branches)),
            _shrink(tuple(branch.biases[0] for branch in branches)),
        )
    return Requantize(
        vector(lambda p: p.multipliers[0]),
        vector(lambda p: p.biases[0]),
        vector(lambda p: p.shifts[0]),
        vector(lambda p: p.lows[0]),
        vector(lambda p: p.highs[0]),
        vector(lambda p: p.acc_low[0]),
        vector(lambda p: p.acc_high[0]),
        negative,
    )


def _shrink(values: tuple[int, ...]) -> tuple[int, ...]:
    return values[:1] if len(set(values)) == 1 else values


def _same_branch(part: Requantize) -> NegativeBranch:
    return NegativeBranch((part.acc_low[0],), part.multipliers, part.biases)


def _channel(
    curve: Curve,
    offsets: Offsets,
    codes: Range,
    reach: Range,
    shift: int | None,
    error: Fraction,
) -> Requantize:
    """One channel's epilogue, with a given shift or the smallest that meets the error budget."""
    low, high = _live_range(curve, codes, reach)
    largest = max(abs(low), abs(high), 1)
    lines = [curve.above] if curve.pivot is None else [curve.above, curve.below]
    if shift is None:
        shift = max(multiplier_and_shift(line.slope, largest, error)[1] for line in lines)
    unit = 1 << shift

    def integers(line: Line, offset: Fraction) -> tuple[int, int]:
        return round_half_up(line.slope * unit), round_half_up((line.offset + offset) * unit)

    multiplier, bias = integers(curve.above, offsets[0])
    negative = None
    if curve.pivot is not None:
        below = integers(curve.below, offsets[1])
        pivot = min(max(curve.pivot, reach.low), reach.high + 1)
        negative = NegativeBranch((pivot,), (below[0],), (below[1],))
    part = Requantize(
        (multiplier,),
        (bias,),
        (shift,),
        (codes.low,),
        (codes.high,),
        (reach.low,),
        (reach.high,),
        negative,
    )
    # Clamp the sum only where that provably changes nothing: each end is on one line, so equal
    # results at both ends of the cut-off part mean equal results throughout it.
    if negative is not None:
        low = min(low, negative.pivots[0] - 1)
        high = max(high, negative.pivots[0])
    low, high = max(low, reach.low), min(high, reach.high)
    if _value(part, low) != _value(part, reach.low):
        low = reach.low
    if _value(part, high) != _value(part, reach.high):
        high = reach.high
    return dataclasses.replace(part, acc_low=(low,), acc_high=(high,))


def _live_range(curve: Curve, codes: Range, reach: Range) -> tuple[int, int]:
    """Sums outside low..high saturate (two steps beyond the clamp), or lie on a level line."""
    first = curve.first_line()
    low, high = reach.low, reach.high
    if first.slope != 0:
        limit = codes.low - 2 if first.slope > 0 else codes.high + 2
        low = max(low, math.floor((limit - first.offset) / first.slope))
    else:
        low = high if curve.pivot is None else max(low, curve.pivot - 1)
    if curve.above.slope != 0:
        limit = codes.high + 2 if curve.above.slope > 0 else codes.low - 2
        high = min(high, math.ceil((limit - curve.above.offset) / curve.above.slope))
    else:
        high = low if curve.pivot is None else min(high, curve.pivot)
    low, high = min(low, reach.high), max(high, reach.low)
    return min(low, high), max(low, high)


def _value(part: Requantize, acc: int) -> int:
    multiplier, bias = part.multipliers[0], part.biases[0]
    if part.negative is not None and acc < part.negative.pivots[0]:
        multiplier, bias = part.negative.multipliers[0], part.negative.biases[0]
    low, high = part.lows[0], part.highs[0]
    result: int = requantize(
        acc, multiplier, bias, part.shifts[0], low, high, lambda c, a, b: a if c else b
    )
    return result


def _first(predicate: Callable[[int], bool], reach: Range) -> int:
    """The smallest sum in reach for which a rising predicate holds; reach.high + 1 if none."""
    low, high = reach.low, reach.high + 1
    while low < high:
        middle = (low + high) // 2
        if predicate(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _ternary(curves: Sequence[Curve], codes: Sequence[Range], reach: Range) -> Thresholds:
    """Strict thresholds at half a step: exactly +-1/2 is 0. A ReLU, a clip or limits leave fewer
    codes."""

    def first(
        curve: Curve, codes: Range, predicate: Callable[[Fraction], bool], result: int
    ) -> int:
        if codes.low >= result:
            return reach.low
        if codes.high < result:
            return reach.high + 1
        return _first(lambda acc: predicate(curve.at(acc)), reach)

    def limits(predicate: Callable[[Fraction], bool], result: int) -> tuple[int, ...]:
        pairs = zip(curves, codes, strict=True)
        return _shrink(tuple(first(curve, range_, predicate, result) for curve, range_ in pairs))

    return Thresholds((limits(lambda v: v >= -HALF, 0), limits(lambda v: v > HALF, 1)), low=-1)


def _check_binary(op: Op, curves: Sequence[Curve], limits: CodeLimits) -> None:
    if max(limits.low) > -1 or min(limits.high) < 1:
        raise UnsupportedError(
            [
                Unsupported(
                    op.kind,
                    op.name,
                    f"its binary output has the codes -1 and 1, but limits of "
                    f"{max(limits.low)}..{min(limits.high)}",
                    "give this layer --abits 2 or more in --config",
                )
            ],
            "binary quantization",
        )
    if not all(rises(curve) for curve in curves):
        raise UnsupportedError(
            [
                Unsupported(
                    op.kind,
                    op.name,
                    "its binary output would fall with the sum (negative gain of a norm)",
                    "give this layer --abits 2 or more in --config",
                )
            ],
            "binary quantization",
        )


def _binary(curves: Sequence[Curve], reach: Range) -> Thresholds:
    """The sign, zero counting as positive."""
    limits = tuple(_first(lambda acc, c=c: c.at(acc) >= 0, reach) for c in curves)  # type: ignore[misc]
    return Thresholds((_shrink(limits),), low=-1, step=2)
