"""Which codes a movement operator's output holds, when its inputs are limited (`CodeLimits`)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

from qcompile.graph import Op
from qcompile.numerics import round_half_up
from qcompile.ops.concat import Concat
from qcompile.ops.gather import Gather
from qcompile.ops.masked_fill import MaskedFill
from qcompile.ops.max_pool import MaxPool
from qcompile.ops.max_unpool import MaxUnpool
from qcompile.ops.nearest_resize import NearestResize
from qcompile.ops.pad import Pad, PadMode
from qcompile.ops.slice import Slice
from qcompile.ops.transpose import Transpose
from qcompile.types import CodeLimits, Range, TensorType


def moved_inputs(op: Op) -> tuple[str, ...]:
    """The inputs whose codes an operator of `MOVEMENT` copies; the others are masks or places."""
    return op.inputs[:1] if isinstance(op, MaskedFill | MaxUnpool) else op.inputs


def moved_limits(op: Op, types: Sequence[TensorType]) -> CodeLimits | None:
    """The limits of the output's codes; None if no input has any.

    Args:
        op: an operator of `MOVEMENT`.
        types: the integer type of each of `moved_inputs`.
    """
    if all(kind.limits is None for kind in types):
        return None
    return CodeLimits.of(moved_codes(op, types))


def moved_codes(op: Op, types: Sequence[TensorType]) -> list[Range]:
    """The codes of each index of the output's axis 1 where whole channels move, else one range
    that holds all."""
    first = by_channel(types[0])
    match op:
        case MaxPool() | NearestResize():
            return first
        case MaxUnpool():
            return [codes.union(Range(0, 0)) for codes in first]
        case Transpose() if op.permutation[1:2] == (1,):
            return first
        case Slice() if len(op.starts) > 1:
            return [first[op.starts[1] + i * op.steps[1]] for i in range(op.sizes[1])]
        case Concat(axis=1):
            return [codes for kind in types for codes in by_channel(kind)]
        case Concat():
            columns = zip(*(by_channel(kind) for kind in types), strict=True)
            return [reduce(Range.union, column) for column in columns]
        case Gather(axis=1):
            return [first[index] for index in op.indices]
        case Gather():
            return first
        case MaskedFill():
            code = fill_code(op, types[0]) if op.code is None else op.code
            return [codes.union(Range(code, code)) for codes in first]
        case Pad():
            return _padded(op, types[0])
    return [reduce(Range.union, (kind.codes for kind in types))]


def _padded(op: Pad, kind: TensorType) -> list[Range]:
    across = len(op.begins) > 1 and bool(op.begins[1] or op.ends[1])
    result = [kind.codes] if across else by_channel(kind)
    if op.mode is not PadMode.CONSTANT or not any((*op.begins, *op.ends)):
        return result
    code = pad_code(op, kind) if op.code is None else op.code
    return [codes.union(Range(code, code)) for codes in result]


def pad_code(op: Pad, kind: TensorType) -> int:
    """The code nearest to the constant of a `Pad`, in the element of its input and output."""
    return _nearest_code(op.value, kind)


def fill_code(op: MaskedFill, kind: TensorType) -> int:
    """The same for the constant of a `MaskedFill`."""
    return _nearest_code(op.value, kind)


def _nearest_code(value: float, kind: TensorType) -> int:
    unit = 1 if kind.quantization is None else kind.quantization.exact()
    code = round_half_up(Fraction(value) / unit)
    return min(max(code, kind.integer.low), kind.integer.high)


def by_channel(kind: TensorType) -> list[Range]:
    """The codes of each index of axis 1 (of the whole tensor, if it has no such axis)."""
    channels = kind.shape[1] if kind.rank > 1 else 1
    limits = kind.limits or CodeLimits.of([kind.integer.range])
    return [limits.at(channel) for channel in range(channels)]
