"""The epilogue of integer sums: `numerics.requantize` and `numerics.threshold` on whole tiles.

The same arithmetic as `numerics`, but in place, in the narrowest dtype that provably holds every
product; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qcompile.errors import GraphError
from qcompile.numerics import Epilogue, Requantize, Thresholds
from qcompile.ops import SumOp
from qcompile.sim.threads import in_lanes
from qcompile.types import Array, Range, TensorType

INT32 = Range(-(1 << 31), (1 << 31) - 1)
INT64 = Range(-(1 << 63), (1 << 63) - 1)
FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT = 1 << 53
CHUNK_BYTES = 1 << 18
"""Whole tensors pass the epilogue in parts of about this size, which stay in the cache."""


def sum_range(op: SumOp) -> Range:
    """The proven range of an operator's sum and of every partial sum.

    Raises:
        GraphError: no accumulator was inferred, or it is too wide for 64-bit arithmetic.
    """
    if op.accumulator is None or op.epilogue is None:
        raise GraphError(
            f"{op.label()}: has integer outputs but no accumulator or epilogue; lower the graph "
            f"and infer accumulators first"
        )
    bound = op.accumulator.range
    if not INT64.contains(bound):
        raise GraphError(
            f"{op.label()}: its sum needs {op.accumulator.bits} bits, more than the 63 that the "
            f"simulator has; use fewer bits"
        )
    return bound


def matrix_dtype(op: SumOp) -> np.dtype[np.generic]:
    """The dtype in which matrix products of this operator are exact in any order: floats, which
    have fast matrix products, wherever every partial sum fits their significand."""
    magnitude = sum_range(op).magnitude
    if magnitude <= FLOAT32_EXACT:
        return np.dtype(np.float32)
    return np.dtype(np.float64 if magnitude <= FLOAT64_EXACT else np.int64)


def integer_dtype(op: SumOp) -> np.dtype[np.generic]:
    """The dtype in which elementwise sums of this operator are exact."""
    return np.dtype(np.int32 if INT32.contains(sum_range(op)) else np.int64)


def finisher(op: SumOp, output: TensorType) -> Callable[[Array], Array]:
    """A function from sums [N, M, ...], which it may overwrite, to output codes."""
    sum_range(op)
    epilogue = op.epilogue
    assert epilogue is not None
    axis = op.channel_axis(output.rank)
    dtype = output.integer.storage
    if isinstance(epilogue, Thresholds):
        return lambda acc: _apply_thresholds(epilogue, acc, axis, dtype, None)
    # Prepared once: hashing the vectors of wide layers costs more than a small tile.
    plan = _prepare(epilogue, axis, output.rank)
    return lambda acc: _apply_requantize(plan, acc, axis, dtype, None)


def finish_integer(op: SumOp, acc: Array, output: TensorType) -> Array:
    """The codes of sums `acc` (given away), computed in parts that stay in the cache."""
    finish = finisher(op, output)
    channels = output.shape[1] if output.rank > 2 and op.channel_axis(output.rank) == 1 else 1
    parts = min(channels, -(-acc.nbytes // CHUNK_BYTES))
    if parts <= 1:
        return finish(acc)
    result = np.empty(acc.shape, output.integer.storage)
    step = -(-channels // parts)
    epilogue = op.epilogue
    assert epilogue is not None

    def run(firsts: Sequence[int]) -> None:
        for first in firsts:
            part = slice(first, first + step)
            result[:, part] = apply_epilogue(epilogue, acc[:, part], 1, result.dtype, part)

    in_lanes(run, range(0, channels, step))
    return result


def apply_epilogue(
    epilogue: Epilogue,
    acc: Array,
    axis: int,
    dtype: np.dtype[np.generic],
    channels: slice | None = None,
) -> Array:
    """Output codes of exact sums.

    Args:
        epilogue: per-channel vectors run along `axis`.
        acc: integers in any dtype that holds them exactly; may be overwritten.
        axis: the channel axis.
        dtype: of the result.
        channels: which channels `acc` holds, all by default.

    Raises:
        GraphError: products need more than 64 bits.
    """
    if isinstance(epilogue, Thresholds):
        return _apply_thresholds(epilogue, acc, axis, dtype, channels)
    return _apply_requantize(_prepare(epilogue, axis, acc.ndim), acc, axis, dtype, channels)


def _apply_requantize(
    plan: _Plan, acc: Array, axis: int, dtype: np.dtype[np.generic], channels: slice | None
) -> Array:
    def of(vector: Array) -> Array:
        return vector if channels is None or vector.size == 1 else vector[_at(axis, channels)]

    if not _exact_in(acc.dtype, plan.limits):
        acc = acc.astype(np.int64)
    if plan.acc_low.size == plan.acc_high.size == 1:
        # With two scalars np.clip is much faster than maximum and minimum, else the other way.
        np.clip(acc, acc.dtype.type(plan.limits.low), acc.dtype.type(plan.limits.high), out=acc)
    else:
        np.maximum(acc, of(plan.acc_low).astype(acc.dtype), out=acc)
        np.minimum(acc, of(plan.acc_high).astype(acc.dtype), out=acc)
    work = acc if acc.dtype == plan.work else acc.astype(plan.work)
    if plan.negative is None:
        work *= of(plan.multipliers)
        work += of(plan.biases)
    else:
        pivots, multipliers, biases = plan.negative
        below = work < of(pivots)
        other = work * of(multipliers)
        other += of(biases)
        work *= of(plan.multipliers)
        work += of(plan.biases)
        np.copyto(work, other, where=below)
    work >>= of(plan.shifts)
    if plan.saturates:
        if plan.lows.size == plan.highs.size == 1:
            np.clip(work, plan.lows.item(), plan.highs.item(), out=work)
        else:
            np.maximum(work, of(plan.lows), out=work)
            np.minimum(work, of(plan.highs), out=work)
    return work.astype(dtype)


def _at(axis: int, channels: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, channels)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A requantize epilogue as arrays that broadcast along the channel axis.

    `work` holds every product; `limits` is the range of the clamped sum; `saturates` says whether
    the final clamp can change anything after the clamp of the sum.
    """

    work: np.dtype[np.generic]
    limits: Range
    saturates: bool
    lows: Array
    highs: Array
    acc_low: Array
    acc_high: Array
    multipliers: Array
    biases: Array
    shifts: Array
    negative: tuple[Array, Array, Array] | None


@lru_cache(maxsize=4096)
def _prepare(epilogue: Requantize, axis: int, rank: int) -> _Plan:
    count = max(
        len(epilogue.multipliers),
        len(epilogue.biases),
        len(epilogue.shifts),
        len(epilogue.lows),
        len(epilogue.highs),
        len(epilogue.acc_low),
        len(epilogue.acc_high),
    )
    negative = epilogue.negative
    if negative is not None:
        count = max(count, len(negative.pivots), len(negative.multipliers), len(negative.biases))

    def spread(vector: Sequence[int]) -> list[int]:
        return list(vector) * count if len(vector) == 1 else list(vector)

    low, high = spread(epilogue.acc_low), spread(epilogue.acc_high)
    limits = Range(min(low), max(high))
    pivots: list[int] = []
    if negative is not None:
        # Equal for every clamped sum, and as narrow as the sum.
        pivots = [
            min(max(pivot, a), b + 1)
            for pivot, a, b in zip(spread(negative.pivots), low, high, strict=True)
        ]
    needed = epilogue.product_range().union(limits)
    needed = needed.union(Range(min(epilogue.lows), max(epilogue.lows)))
    needed = needed.union(Range(min(epilogue.highs), max(epilogue.highs)))
    for vector in (epilogue.multipliers, epilogue.biases, pivots):
        needed = needed.union(Range(min(vector, default=0), max(vector, default=0)))
    if negative is not None:
        for vector in (negative.multipliers, negative.biases):
            needed = needed.union(Range(min(vector), max(vector)))
    if not INT64.contains(needed):
        raise GraphError(
            f"an epilogue's products reach {needed.magnitude}, beyond 64 bits; "
            f"use fewer accumulator or output bits"
        )
    work = np.dtype(np.int32 if INT32.contains(needed) else np.int64)

    def vector_of(values: Sequence[int], dtype: np.dtype[np.generic]) -> Array:
        data = np.asarray(values, dtype=dtype)
        if len(set(values)) == 1:
            return data[:1].reshape((1,) * rank)
        shape = [1] * rank
        shape[axis] = len(values)
        return data.reshape(shape)

    return _Plan(
        work,
        limits,
        _saturates(epilogue, count),
        vector_of(epilogue.lows, work),
        vector_of(epilogue.highs, work),
        vector_of(low, np.dtype(np.int64)),
        vector_of(high, np.dtype(np.int64)),
        vector_of(epilogue.multipliers, work),
        vector_of(epilogue.biases, work),
        vector_of(epilogue.shifts, work),
        None
        if negative is None
        else (
            vector_of(pivots, work),
            vector_of(negative.multipliers, work),
            vector_of(negative.biases, work),
        ),
    )


def _saturates(epilogue: Requantize, count: int) -> bool:
    """Whether some clamped sum still leaves its limits: each branch is linear, so its ends tell."""

    def at(values: Sequence[int], channel: int) -> int:
        return values[channel if len(values) > 1 else 0]

    for c in range(count):
        low, high = at(epilogue.acc_low, c), at(epilogue.acc_high, c)
        parts = [(low, high, at(epilogue.multipliers, c), at(epilogue.biases, c))]
        if epilogue.negative is not None:
            pivot = at(epilogue.negative.pivots, c)
            below = at(epilogue.negative.multipliers, c), at(epilogue.negative.biases, c)
            parts = [(max(low, pivot), high, *parts[0][2:]), (low, min(high, pivot - 1), *below)]
        for first, last, multiplier, bias in parts:
            for a in (first, last) if first <= last else ():
                y = (a * multiplier + bias) >> at(epilogue.shifts, c)
                if not at(epilogue.lows, c) <= y <= at(epilogue.highs, c):
                    return True
    return False


def _exact_in(dtype: np.dtype[np.generic], values: Range) -> bool:
    if dtype.kind == "f":
        return values.magnitude <= (FLOAT32_EXACT if dtype.itemsize == 4 else FLOAT64_EXACT)
    return (INT32 if dtype.itemsize == 4 else INT64).contains(values)


def _apply_thresholds(
    epilogue: Thresholds,
    acc: Array,
    axis: int,
    dtype: np.dtype[np.generic],
    channels: slice | None,
) -> Array:
    """Adds a step for each threshold that the sum reaches; every stage lies in the output type."""
    result = np.full(acc.shape, epilogue.low, dtype)
    flat = [limit for row in epilogue.thresholds for limit in row]
    span = Range(min(flat, default=0), max(flat, default=0))
    if not INT64.contains(span):
        raise GraphError(f"a threshold {span.magnitude} is beyond 64 bits; use fewer bits")
    if not _exact_in(acc.dtype, span):
        acc = acc.astype(np.int64)
    step = dtype.type(epilogue.step)
    for row in epilogue.thresholds:
        limits = np.asarray(row, dtype=np.int64).astype(acc.dtype)
        if limits.size > 1:
            shape = [1] * acc.ndim
            shape[axis] = limits.size
            limits = limits.reshape(shape)
            if channels is not None:
                limits = limits[_at(axis, channels)]
        reached = (acc >= limits).view(np.uint8).astype(dtype)
        if epilogue.step != 1:
            reached *= step
        result += reached
    return result
